//! The specs that a cluster runs and ran, as its StatefulSet and its ConfigMap carry them: the one in force, the last one that every broker
//! ran well on, and which rollout was halted.

use rivven_fsm::cluster as fsm;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::compare;
use crate::api::RivvenClusterSpec;
use crate::broker::{capabilities, capabilities_of};
use crate::{names, render};

/// A rollout that was halted, as it stands in the annotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halt {
    /// Which pod template, by its hash: nothing else of a spec can break a broker.
    pub template: String,
    /// The revision that it had.
    pub revision: String,
    /// The broker that did not come back.
    pub broker: u32,
    /// Why, for a person.
    pub message: String,
}

/// What they carry.
#[derive(Default)]
pub(super) struct History {
    /// The spec in force when it was last written.
    pub(super) accepted: Option<RivvenClusterSpec>,
    /// The last spec that every broker ran well on.
    pub(super) proven: Option<RivvenClusterSpec>,
    halt: Option<Halt>,
}

impl History {
    pub(super) fn of(set: &Value) -> Self {
        fn read<T: serde::de::DeserializeOwned>(set: &Value, annotation: &str) -> Option<T> {
            let text = set.pointer("/metadata/annotations")?.get(annotation)?.as_str()?;
            serde_json::from_str(text).ok()
        }
        Self {
            accepted: read(set, names::ACCEPTED_SPEC),
            proven: read(set, names::PROVEN_SPEC),
            halt: read(set, names::HALTED),
        }
    }

    /// The halt, as long as it stands: the spec still asks for that template, there is a spec to go back to, and the
    /// broker is still not well on it. A broker that came to life late lifts it, and the rollout goes on.
    pub(super) fn standing_halt(&self, template: &str, brokers: &[fsm::Broker]) -> Option<&Halt> {
        let halt = self.halt.as_ref().filter(|halt| halt.template == template && self.proven.is_some())?;
        let came_back = brokers.iter().any(|broker| {
            broker.ordinal == halt.broker
                && is_well(broker)
                && broker.pod.as_ref().is_some_and(|pod| pod.revision == halt.revision)
        });
        (!came_back).then_some(halt)
    }

    /// What the StatefulSet is to carry as the last proven spec once `in_force` is in force. What every broker runs well
    /// on now is noted when it is about to change, and after each rollout: later a broker may be ill for another reason.
    pub(super) fn proven_then(
        &self,
        in_force: &RivvenClusterSpec,
        set: Option<&fsm::StatefulSet>,
        brokers: &[fsm::Broker],
    ) -> Option<&RivvenClusterSpec> {
        let accepted = self.accepted.as_ref()?;
        let wanted = set.and_then(|set| set.update_revision.as_ref());
        let runs_well = wanted.is_some()
            && (0..accepted.replicas).all(|ordinal| {
                let broker = brokers.iter().find(|broker| broker.ordinal == ordinal);
                let pod = broker.filter(|broker| is_well(broker)).and_then(|broker| broker.pod.as_ref());
                pod.is_some_and(|pod| Some(&pod.revision) == wanted)
            });
        let changes = accepted != in_force;
        if runs_well && (changes || self.proven.is_some()) { Some(accepted) } else { self.proven.as_ref() }
    }
}

/// Puts on a desired object what it is to carry. Not only the StatefulSet: it is taken away and made anew when its volumes
/// have grown, and what was in force must still be known then.
pub(super) fn carry(
    object: &mut Value,
    in_force: &RivvenClusterSpec,
    proven: Option<&RivvenClusterSpec>,
    halt: Option<&Halt>,
) {
    let annotations = &mut object["metadata"]["annotations"];
    annotations[names::ACCEPTED_SPEC] = json!(json!(in_force).to_string());
    if let Some(proven) = proven {
        annotations[names::PROVEN_SPEC] = json!(json!(proven).to_string());
    }
    if let Some(halt) = halt {
        annotations[names::HALTED] = json!(json!(halt).to_string());
    }
}

/// The hash of the pod template that a spec makes.
pub(super) fn template(input: &render::Input<'_>, spec: &RivvenClusterSpec, override_: Option<&str>) -> String {
    let able = capabilities_of(&spec.version, spec.replicas, override_).unwrap_or_else(|_| capabilities(&spec.version));
    compare::hash(&render::template(&render::Input { spec, capabilities: able, ..*input }))
}

/// Its pod is up and it answered that it is well.
fn is_well(broker: &fsm::Broker) -> bool {
    broker.pod.as_ref().is_some_and(fsm::Pod::is_up) && matches!(broker.answer, fsm::Answer::Said { healthy: true, .. })
}
