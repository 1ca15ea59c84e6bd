//! The program itself: three processes by environment, one of them killed, all of them stopped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, ExitStatus, Stdio};

use rivven_protocol::{Request, Response};
use serde_json::{Value, json};
use support::wire::{ask, publishing};
use support::{eventually, http, topic};
use tempfile::TempDir;

struct Process {
    name: String,
    ports: [u16; 3],
    child: Child,
}

impl Process {
    fn start(number: usize, ports: [u16; 3], disks: &TempDir) -> Self {
        let name = format!("p{number}");
        let [client, cluster, api] = ports.map(|port| format!("127.0.0.1:{port}"));
        let child = Command::new(env!("CARGO_BIN_EXE_rivvend"))
            .env_clear()
            .envs([("RIVVEN_MODE", "cluster"), ("RIVVEN_NODE_ID", &name), ("RIVVEN_CLUSTER_AUTH_TOKEN", "token")])
            .envs([("RIVVEN_BIND", &client), ("RIVVEN_CLUSTER_BIND", &cluster), ("RIVVEN_API_BIND", &api)])
            .envs([("RIVVEN_ADVERTISE_ADDR", cluster.as_str()), ("RIVVEN_NO_REQUIRE_AUTH", "true")])
            .envs([("RIVVEN_REPLICA_LAG_MS", "1000"), ("RIVVEN_SEEDS", "ignored:1"), ("RUST_LOG", "warn")])
            .env("RIVVEN_DATA_DIR", disks.path().join(&name))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { name, ports, child }
    }

    fn client(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports[0]))
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        http(SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports[2])), method, path, Some("token"), body).await
    }

    async fn until_ready(&self) {
        eventually("ready", async || (self.call("GET", "/health/ready", None).await.0 == 200).then_some(())).await;
    }

    /// As an operator's pod is stopped.
    fn terminate(&mut self) -> ExitStatus {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Ports that are free now.
fn free() -> [u16; 3] {
    let listeners = [(); 3].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

#[tokio::test]
async fn three_processes_survive_the_kill_of_one_and_stop_when_told_to() {
    let disks = TempDir::new().unwrap();
    let mut processes: Vec<Process> = (0..3).map(|number| Process::start(number, free(), &disks)).collect();
    for process in &processes {
        let answers = async || (process.call("GET", "/health", None).await.0 == 503).then_some(());
        eventually("an answer", answers).await;
    }
    let member = |process: &Process| json!({ "node_id": process.name, "addr": format!("http://127.0.0.1:{}", process.ports[2]) });
    let members: Vec<Value> = processes.iter().map(member).collect();
    let (status, body) = processes[0].call("POST", "/api/v1/bootstrap", Some(json!({ "members": members }))).await;
    assert_eq!(status, 200, "{body}");
    for process in &processes {
        process.until_ready().await;
    }
    let create = json!({ "command": topic("t", 2, &[&["p0", "p1", "p2"]]) });
    eventually("the topic", async || {
        for process in &processes {
            let (status, _) = process.call("POST", "/api/v1/propose", Some(create.clone())).await;
            if status == 200 {
                return Some(());
            }
        }
        None
    })
    .await;

    let publish = async |process: &Process, value: &str| {
        let published = ask(process.client(), publishing("t", 0, value.as_bytes())).await;
        let Ok(Response::Published { offset, .. }) = published else { return None };
        Some(offset)
    };
    for number in 0..20 {
        let value = format!("v{number}");
        let offset = eventually("a publish", async || publish(&processes[0], &value).await).await;
        assert_eq!(offset, number);
    }
    // SIGKILL to the leader of the partition.
    processes[0].child.kill().unwrap();
    processes[0].child.wait().unwrap();
    let survivors = &processes[1..];
    let leader = eventually("another leader", async || {
        for process in survivors {
            if publish(process, "after").await.is_some() {
                return Some(process.client());
            }
        }
        None
    })
    .await;
    processes[0] = Process::start(0, processes[0].ports, &disks);
    processes[0].until_ready().await;
    let consume = Request::Consume {
        topic: "t".to_owned(),
        partition: 0,
        offset: 0,
        max_messages: 100,
        isolation_level: None,
        max_wait_ms: None,
    };
    let Ok(Response::Messages { messages }) = ask(leader, consume).await else { panic!("no records") };
    for (number, message) in messages.iter().take(20).enumerate() {
        assert_eq!(message.value, format!("v{number}"));
    }
    assert!(messages.len() > 20);
    for process in &mut processes {
        assert_eq!(process.terminate().code(), Some(0), "{}", process.name);
    }
}
