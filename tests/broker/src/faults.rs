//! Faults on demand, which no released broker has: they show whether the guards against them hold.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// No space left on device.
const ENOSPC: i32 = 28;

/// The body of `POST /test/faults`. What it does not name stays as it is.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Order {
    /// First of all ends every fault.
    clear: bool,
    /// The replicas on this broker that follow fetch so much later.
    lag_ms: Option<u64>,
    /// No record and no metadata get onto this broker's disk.
    disk_full: Option<bool>,
    /// A call is answered with an error: one to this path, or a request or a proposal of this name.
    refuse: Option<String>,
    /// A call takes effect, and its connection is closed instead of an answer.
    lose_reply: Option<String>,
    /// How many of these calls; without it, all.
    times: Option<u32>,
}

/// What happens to a call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Refused,
    ReplyLost,
}

struct Doom {
    call: String,
    fate: Fate,
    times: Option<u32>,
}

#[derive(Clone, Copy, Default)]
struct State {
    lag: Duration,
    disk_full: bool,
}

/// The faults of one broker. They end with it.
#[derive(Default)]
pub(crate) struct Faults {
    state: watch::Sender<State>,
    dooms: Mutex<Vec<Doom>>,
}

impl Faults {
    pub(crate) fn order(&self, order: Order) {
        let mut dooms = self.dooms.lock().unwrap_or_else(PoisonError::into_inner);
        if order.clear {
            dooms.clear();
        }
        let calls = [(order.refuse, Fate::Refused), (order.lose_reply, Fate::ReplyLost)];
        let doomed = calls.into_iter().filter_map(|(call, fate)| Some(Doom { call: call?, fate, times: order.times }));
        dooms.extend(doomed);
        self.state.send_modify(|state| {
            let before = if order.clear { State::default() } else { *state };
            let lag = order.lag_ms.map_or(before.lag, Duration::from_millis);
            *state = State { lag, disk_full: order.disk_full.unwrap_or(before.disk_full) };
        });
    }

    pub(crate) fn clear(&self) {
        self.order(Order { clear: true, ..Order::default() });
    }

    /// The fate of a call of which it can be told whether it has a name.
    pub(crate) fn fate(&self, named: impl Fn(&str) -> bool) -> Option<Fate> {
        let mut dooms = self.dooms.lock().unwrap_or_else(PoisonError::into_inner);
        let index = dooms.iter().position(|doom| doom.times != Some(0) && named(&doom.call))?;
        let doom = dooms.get_mut(index)?;
        doom.times = doom.times.map(|times| times - 1);
        Some(doom.fate)
    }

    /// Waits as long as a fetch is late.
    pub(crate) async fn late(&self) {
        let (mut state, since) = (self.state.subscribe(), Instant::now());
        loop {
            let lag = state.borrow_and_update().lag;
            if lag <= since.elapsed() || timeout_at(since + lag, state.changed()).await.is_err() {
                return;
            }
        }
    }

    /// Whether there is room on the disk.
    pub(crate) fn room(&self) -> io::Result<()> {
        if self.state.borrow().disk_full { Err(io::Error::from_raw_os_error(ENOSPC)) } else { Ok(()) }
    }

    /// Waits for room: to Raft a failed write is the end of the broker.
    pub(crate) async fn until_room(&self) {
        drop(self.state.subscribe().wait_for(|state| !state.disk_full).await);
    }
}
