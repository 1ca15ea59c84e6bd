//! The way out: from a signal to the end of the process within [`GRACE`].

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How long the process may take from the signal to its end.
pub const GRACE: Duration = Duration::from_secs(5);

/// How long the controllers may take to finish what they have begun; the rest of [`GRACE`] is for the Lease.
pub const DRAIN: Duration = Duration::from_secs(3);

/// Somebody may be asked to stop. Cheap to clone; every clone sees the same request.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

/// Asks the holders of a [`Stop`] to stop; so does dropping it.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// A request to stop and those who wait for it.
pub fn pair() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// Asks. Asking twice is asking once.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Stops at SIGTERM or SIGINT. The handlers are in place when this returns, so no signal is missed afterwards.
    pub fn on_signals() -> io::Result<Self> {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let (stopper, stop) = pair();
        tokio::spawn(async move {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            tracing::info!(signal = name, "stopping");
            stopper.stop();
        });
        Ok(stop)
    }

    /// Whether the request was made.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits for the request.
    pub async fn requested(&self) {
        // An error says that nobody is left to ask: that is the end as well.
        let _ = self.0.clone().wait_for(|asked| *asked).await;
    }

    /// From the request on, gives `work` no more than `limit`; `None` if that was not enough.
    pub async fn drain<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        let late = async {
            self.requested().await;
            tokio::time::sleep(limit).await;
        };
        tokio::select! {
            done = work => Some(done),
            () = late => None,
        }
    }
}

/// Ends the process `limit` after `stop` was asked for, whatever the tasks are doing.
///
/// A thread of its own keeps the time: a task that blocks its worker, or one that the runtime waits for at its end,
/// would keep a timer from firing.
pub fn enforce(stop: &Stop, limit: Duration) {
    let stop = stop.clone();
    tokio::spawn(async move {
        stop.requested().await;
        std::thread::spawn(move || {
            std::thread::sleep(limit);
            eprintln!("not everything stopped in time");
            std::process::exit(1);
        });
    });
}
