//! A guard is a named unit: a predicate over what was observed, with the reason code, the words for a person and the
//! metric label that go with it. `Refusal` is what it says when it does not let something pass.

use crate::reason::Reason;

/// Why a guard does not let something pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code; also the metric label.
    pub reason: Reason,
    /// For a person: what is wrong and what to do.
    pub message: String,
}

/// A named predicate over an observation `O`.
pub struct Guard<O: ?Sized> {
    /// The code it refuses with. One guard, one reason: the reason names the guard everywhere.
    pub reason: Reason,
    /// `None` lets pass; `Some(message)` refuses, in words for a person.
    pub refuses: fn(&O) -> Option<String>,
}

impl<O: ?Sized> Guard<O> {
    /// Asks the guard.
    pub fn check(&self, observed: &O) -> Option<Refusal> {
        (self.refuses)(observed).map(|message| Refusal { reason: self.reason, message })
    }
}

/// Every refusal of `guards`, in order.
pub fn refusals<O: ?Sized>(guards: &[Guard<O>], observed: &O) -> Vec<Refusal> {
    guards.iter().filter_map(|guard| guard.check(observed)).collect()
}
