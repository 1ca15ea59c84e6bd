//! Leader election on a `coordination.k8s.io/v1` Lease: two replicas never both write.
//!
//! The rules are client-go's, with its numbers: lease 15 s, renew deadline 10 s, retry 2 s.
//!
//! - A Lease is judged expired by the *local monotonic* time since it was last seen to change. No clock of
//!   another machine is ever compared, so clocks may differ as they like.
//! - A leader may begin a write only until the renew deadline after the *beginning* of its last successful renewal. The
//!   API server applied that renewal later than that, a candidate saw it later still, and waits longer: the leader
//!   has stopped before anybody else starts.
//! - Each write of the Lease carries the version that was read; a 409 means the world has moved.
//!
//! Two rules are stricter than client-go's, which lets candidates overlap when the Lease is deleted:
//!
//! - a leader whose Lease is gone has lost;
//! - who creates the Lease where there was none renews it for one renew deadline before it may write, for a leader that
//!   has not noticed the deletion may still be writing. (This costs ten seconds once, at the first start in a namespace.)
//!
//! What cannot be closed: Kubernetes has no fencing. A write that has begun may arrive after the deadline, and a
//! machine that is suspended does not count the time it slept. So every write that could hurt carries a uid or a
//! resourceVersion besides.
//!
//! This is code of our own because the published crates do not fit: `kube-leader-election` 0.44 is bound to kube 4, and
//! `kube-lease-manager` 0.13 judges expiry by comparing wall clocks. Neither tells its user a deadline, only a
//! yes or no that may be stale.

use std::collections::hash_map::{DefaultHasher, RandomState};
use std::future::Future;
use std::hash::{BuildHasher, Hash, Hasher};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::health::Heartbeat;
use super::lease::{LeaseError, LeaseStore};
use super::metrics::Metrics;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// For how long others must leave a Lease alone after they saw it change.
    pub lease: Duration,
    /// For how long after a renewal the leader may begin writes. Must be shorter than [`lease`](Self::lease).
    pub renew_deadline: Duration,
    /// The pause between two attempts.
    pub retry: Duration,
}

impl Timing {
    /// No request may use up the whole renew deadline, or one hanging connection would cost the leadership.
    fn request(&self) -> Duration {
        self.renew_deadline / 2
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self { lease: Duration::from_secs(15), renew_deadline: Duration::from_secs(10), retry: Duration::from_secs(2) }
    }
}

/// What others may know of the election. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<Role>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// There is no election.
    Always,
    Standby,
    Leader {
        until: Instant,
    },
    Lost,
    /// Given up on request.
    Resigned,
}

impl Leadership {
    /// For an operator that runs alone, with `--leader-election=false`.
    pub fn always() -> Self {
        Self(watch::channel(Role::Always).1)
    }

    /// Whether a write may begin now. To be asked directly before each write: the answer has a deadline.
    pub fn may_write(&self) -> bool {
        match *self.0.borrow() {
            Role::Always => true,
            Role::Leader { until } => Instant::now() < until,
            Role::Standby | Role::Lost | Role::Resigned => false,
        }
    }

    /// Waits until this process is the leader; for ever if that is over.
    pub async fn wait_until_leader(&self) {
        self.wait_for(|role| matches!(role, Role::Always | Role::Leader { .. })).await;
    }

    /// Waits until a leadership that was held is lost. The process must then exit: what it has in its caches and
    /// queues was decided as leader. Never happens without an election, or after resigning.
    pub async fn lost(&self) {
        self.wait_for(|role| matches!(role, Role::Lost)).await;
    }

    /// Waits until the role of this process changes; for ever if it cannot any more.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Shows the role as a metric for as long as it is polled.
    pub async fn show(mut self, metrics: Metrics) {
        loop {
            let leads = matches!(*self.0.borrow_and_update(), Role::Always | Role::Leader { .. });
            metrics.set_leader(leads);
            self.changed().await;
        }
    }

    async fn wait_for(&self, condition: impl Fn(&Role) -> bool) {
        if self.0.clone().wait_for(condition).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// How an election ended for this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was asked to stop, and has released the Lease if it held it.
    Stopped,
    /// It was the leader and is not any more.
    Lost,
}

/// One candidate.
#[derive(Debug)]
pub struct Elector<S> {
    store: S,
    identity: String,
    timing: Timing,
    role: watch::Sender<Role>,
    heartbeat: Option<Heartbeat>,
    observed: Option<Observed>,
    attempts: u64,
}

#[derive(Debug)]
struct Observed {
    lease: Lease,
    since: Instant,
}

/// What one attempt led to.
#[derive(Debug)]
enum Attempt {
    /// The Lease is ours, by a request that began at this instant.
    Held(Instant),
    /// As [`Attempt::Held`], but there was no Lease before, or there may have been none.
    Unsettled(Instant),
    /// It belongs to somebody else, or is gone.
    NotOurs,
    /// Nobody knows.
    Failed,
}

impl<S: LeaseStore> Elector<S> {
    /// A candidate, and the handle that tells how it fares.
    pub fn new(store: S, identity: String, timing: Timing) -> (Self, Leadership) {
        let (role, receiver) = watch::channel(Role::Standby);
        (Self { store, identity, timing, role, heartbeat: None, observed: None, attempts: 0 }, Leadership(receiver))
    }

    /// Beats this heart at every attempt.
    #[must_use]
    pub fn with_heartbeat(mut self, heartbeat: Heartbeat) -> Self {
        self.heartbeat = Some(heartbeat);
        self
    }

    /// Takes part until leadership was held and lost, or until `stop`; then the Lease is released.
    ///
    /// `stop` should resolve when the controllers are done: until then the Lease is renewed, so that what they finish is
    /// finished as leader.
    pub async fn run(mut self, stop: impl Future<Output = ()> + Send) -> End {
        let asked = {
            let elect = self.elect();
            tokio::select! {
                () = stop => true,
                () = elect => false,
            }
        };
        if !asked {
            self.role.send_replace(Role::Lost);
            return End::Lost;
        }
        // First no write may begin, then others may know.
        let before = self.role.send_replace(Role::Resigned);
        // A Lease that was created just now is left to expire: whoever held the one before it may still be writing, and
        // an empty holder would tell the next candidate that nobody is.
        if matches!(before, Role::Leader { .. }) {
            self.release().await;
        }
        End::Stopped
    }

    /// Returns when a leadership was lost.
    async fn elect(&mut self) {
        loop {
            let (began, writable_from) = self.acquire().await;
            if self.lead(began, writable_from).await {
                return;
            }
        }
    }

    async fn acquire(&mut self) -> (Instant, Instant) {
        loop {
            self.beat();
            let limit = Instant::now() + self.timing.request();
            match timeout_at(limit, self.attempt()).await {
                Ok(Attempt::Held(began)) => return (began, began),
                // From the answer on, and not from the request: the old Lease may have been renewed while that travelled.
                Ok(Attempt::Unsettled(began)) => return (began, Instant::now() + self.timing.renew_deadline),
                Ok(Attempt::NotOurs | Attempt::Failed) => {}
                Err(_) => tracing::warn!("no answer about the Lease in time"),
            }
            sleep(self.jittered_retry()).await;
        }
    }

    /// Renews for as long as that works. Returns whether writes were allowed meanwhile.
    async fn lead(&mut self, began: Instant, writable_from: Instant) -> bool {
        let (mut tried, mut until) = (began, began + self.timing.renew_deadline);
        loop {
            let now = Instant::now();
            if now >= until {
                tracing::error!("the Lease could not be renewed in time");
                return self.was_leader();
            }
            if now >= writable_from {
                self.publish(until);
            }
            // Counted from the last attempt's beginning: a slow answer has used up its share of the deadline already.
            let mut wake = until.min(tried + self.timing.retry);
            if now < writable_from {
                wake = wake.min(writable_from);
            }
            sleep_until(wake).await;
            self.beat();
            tried = Instant::now();
            let limit = until.min(tried + self.timing.request());
            match timeout_at(limit, self.renew()).await {
                Ok(Attempt::Held(began)) => until = began + self.timing.renew_deadline,
                Ok(Attempt::Unsettled(_) | Attempt::NotOurs) => {
                    tracing::error!("the Lease belongs to somebody else, or is gone");
                    return self.was_leader();
                }
                Ok(Attempt::Failed) => {}
                Err(_) => tracing::warn!("no answer about the Lease in time"),
            }
        }
    }

    fn was_leader(&self) -> bool {
        matches!(*self.role.borrow(), Role::Leader { .. })
    }

    /// A later deadline is no news for those who wait for a change of role.
    fn publish(&self, until: Instant) {
        self.role.send_if_modified(|role| {
            let new = !matches!(role, Role::Leader { .. });
            *role = Role::Leader { until };
            new
        });
        tracing::trace!(identity = self.identity, "leading");
    }

    /// Tries to become the holder.
    async fn attempt(&mut self) -> Attempt {
        let lease = match self.store.get().await {
            Ok(lease) => lease,
            Err(error) => return failed(&error),
        };
        let Some(lease) = lease else {
            return self.create().await;
        };
        let since = self.observe(&lease);
        if self.is_held_by_other(&lease, since) {
            return Attempt::NotOurs;
        }
        let ours_already = holder(&lease) == self.identity;
        match self.write(lease).await {
            // The answer to the request that made it ours was lost, and that request may have been a creation.
            Attempt::Held(began) if ours_already => Attempt::Unsettled(began),
            attempt => attempt,
        }
    }

    async fn create(&mut self) -> Attempt {
        let began = Instant::now();
        let lease = Lease { spec: Some(self.spec(None)), ..Lease::default() };
        match self.store.create(lease).await {
            Ok(lease) => {
                self.observe(&lease);
                tracing::info!(identity = self.identity, "created the Lease");
                Attempt::Unsettled(began)
            }
            Err(error) => failed(&error),
        }
    }

    /// Renews without reading first: the version of the last write says whether anything came in between.
    async fn renew(&mut self) -> Attempt {
        let Some(known) = self.observed.as_ref().map(|observed| observed.lease.clone()) else {
            return Attempt::NotOurs;
        };
        match self.put(known).await {
            Ok(began) => return Attempt::Held(began),
            Err(LeaseError::Gone) => return Attempt::NotOurs,
            Err(LeaseError::Conflict) => {}
            Err(error @ LeaseError::Unknown(_)) => return failed(&error),
        }
        // Somebody put a label on it, an earlier renewal arrived whose answer did not, or it has another holder.
        match self.store.get().await {
            Ok(Some(lease)) if holder(&lease) == self.identity => self.write(lease).await,
            Ok(_) => Attempt::NotOurs,
            Err(error) => failed(&error),
        }
    }

    async fn write(&mut self, lease: Lease) -> Attempt {
        match self.put(lease).await {
            Ok(began) => Attempt::Held(began),
            Err(error) => failed(&error),
        }
    }

    async fn put(&mut self, lease: Lease) -> Result<Instant, LeaseError> {
        let spec = self.spec(lease.spec.as_ref());
        // Taken before the request begins: when it was applied is known only to be later.
        let began = Instant::now();
        let stored = self.store.replace(Lease { spec: Some(spec), ..lease }).await?;
        self.observe(&stored);
        Ok(began)
    }

    /// Remembers the Lease, and says since when it is known to be as it is.
    ///
    /// The version tells, not the record: a holder whose clock stands still renews without changing the record.
    fn observe(&mut self, lease: &Lease) -> Instant {
        let version = |lease: &Lease| (lease.metadata.uid.clone(), lease.metadata.resource_version.clone());
        let known = self.observed.as_ref().filter(|known| version(&known.lease) == version(lease));
        let since = known.map_or_else(Instant::now, |known| known.since);
        self.observed = Some(Observed { lease: lease.clone(), since });
        since
    }

    fn is_held_by_other(&self, lease: &Lease, since: Instant) -> bool {
        let holder = holder(lease);
        if holder.is_empty() || holder == self.identity {
            return false;
        }
        // The holder's own promise counts: it may have been started with other numbers than we were.
        let promised = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
        let promised = promised.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
        Instant::now() < since + promised.unwrap_or(self.timing.lease)
    }

    /// The record that says it is ours.
    fn spec(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = Some(MicroTime(Timestamp::now()));
        let before = before.cloned().unwrap_or_default();
        let ours = before.holder_identity.as_deref() == Some(&self.identity);
        // The first holder is no transition; a Lease that was released counts the next one.
        let transitions =
            before.lease_transitions.map_or(0, |count| if ours { count } else { count.saturating_add(1) });
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.timing.lease.as_secs()).ok(),
            acquire_time: if ours { before.acquire_time } else { now.clone() },
            renew_time: now,
            lease_transitions: Some(transitions),
            ..before
        }
    }

    /// Lets others in without waiting for the Lease to expire.
    async fn release(&mut self) {
        let limit = Instant::now() + self.timing.retry;
        if timeout_at(limit, self.give_up()).await.is_err() {
            tracing::warn!("the Lease could not be released in time; it will expire");
        }
    }

    async fn give_up(&mut self) {
        // A renewal that was cut short may yet arrive: hence a look at what the API server has, instead of trust in
        // what we remember, and a second round if it came in between.
        for _ in 0..2 {
            let lease = match self.store.get().await {
                Ok(Some(lease)) if holder(&lease) == self.identity => lease,
                Ok(_) => return,
                Err(error) => return report(&error),
            };
            let now = Some(MicroTime(Timestamp::now()));
            let spec = LeaseSpec {
                holder_identity: Some(String::new()),
                lease_duration_seconds: Some(1),
                acquire_time: now.clone(),
                renew_time: now,
                ..lease.spec.clone().unwrap_or_default()
            };
            match self.store.replace(Lease { spec: Some(spec), ..lease }).await {
                Ok(_) => return tracing::info!(identity = self.identity, "released the Lease"),
                Err(LeaseError::Conflict) => {}
                Err(error) => return report(&error),
            }
        }
    }

    /// The pause stretched up to 2.2 times, as client-go does it, so that candidates do not march in step. Their identities are
    /// random; that makes this random too, and yet the same in each run of a test.
    fn jittered_retry(&mut self) -> Duration {
        self.attempts = self.attempts.wrapping_add(1);
        let mut hasher = DefaultHasher::new();
        (&self.identity, self.attempts).hash(&mut hasher);
        let part = f64::from(u32::try_from(hasher.finish() >> 32).unwrap_or_default()) / f64::from(u32::MAX);
        self.timing.retry.mul_f64(1.0 + 1.2 * part)
    }

    fn beat(&self) {
        if let Some(heartbeat) = &self.heartbeat {
            heartbeat.beat();
        }
    }
}

/// A name for this process that no other has, not even the same Pod's next container.
pub fn identity() -> String {
    let host = ["POD_NAME", "HOSTNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    // The standard library seeds each hasher at random; that is all the randomness this needs.
    format!("{}_{:016x}", host.as_deref().unwrap_or("rivven-operator"), RandomState::new().build_hasher().finish())
}

fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}

fn failed(error: &LeaseError) -> Attempt {
    report(error);
    Attempt::Failed
}

fn report(error: &LeaseError) {
    match error {
        LeaseError::Conflict | LeaseError::Gone => tracing::debug!(%error, "the Lease was written by somebody else"),
        LeaseError::Unknown(_) => tracing::warn!(%error, "the Lease could not be read or written"),
    }
}
