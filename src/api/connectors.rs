//! Sources and sinks of a `RivvenConnect`.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::common::{defaults, yes};

/// A connector that writes into a topic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.tables) || self.tables.size() == 0 || !has(self.postgresCdc) || !has(self.postgresCdc.tables) || self.postgresCdc.tables.size() == 0").message("tables may be given in the source or in postgresCdc, not in both"),
    validation = Rule::new("[has(self.postgresCdc), has(self.mysqlCdc), has(self.http), has(self.datagen)].filter(x, x).size() <= 1").message("only one typed configuration may be given"),
    validation = Rule::new("!has(self.postgresCdc) || self.connector == 'postgres-cdc'").message("postgresCdc goes with connector postgres-cdc"),
    validation = Rule::new("!has(self.mysqlCdc) || self.connector == 'mysql-cdc'").message("mysqlCdc goes with connector mysql-cdc"),
    validation = Rule::new("!has(self.http) || self.connector == 'http'").message("http goes with connector http"),
    validation = Rule::new("!has(self.datagen) || self.connector == 'datagen'").message("datagen goes with connector datagen")
)]
pub struct SourceConnector {
    /// Unique name among the sources.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-zA-Z0-9]([a-zA-Z0-9._-]*[a-zA-Z0-9])?$"))]
    pub name: String,
    /// Type of the connector, such as `postgres-cdc`, `mysql-cdc`, `http`, `datagen`.
    #[schemars(length(min = 1, max = 63))]
    pub connector: String,
    /// Topic it writes to.
    #[schemars(length(min = 1, max = 255))]
    pub topic: String,
    /// Pattern of the topic, with placeholders such as `{schema}` and `{table}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub topic_routing: Option<String>,
    /// Run it.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Free configuration, with the worker's own keys.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "free_form")]
    pub config: Map<String, Value>,
    /// Secret whose keys become configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub config_secret_ref: Option<String>,
    /// Tables to capture.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500))]
    pub tables: Vec<Table>,
    /// The topic, which exists before the worker starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_config: Option<SourceTopic>,
    /// PostgreSQL change data capture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres_cdc: Option<PostgresCdc>,
    /// `MySQL` change data capture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mysql_cdc: Option<MysqlCdc>,
    /// Polls a URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpSource>,
    /// Generates records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datagen: Option<Datagen>,
}

/// A connector that reads from topics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.s3), has(self.stdout), has(self.elasticsearch), has(self.httpSink)].filter(x, x).size() <= 1").message("only one typed configuration may be given"),
    validation = Rule::new("!has(self.s3) || self.connector == 's3'").message("s3 goes with connector s3"),
    validation = Rule::new("!has(self.stdout) || self.connector == 'stdout'").message("stdout goes with connector stdout"),
    validation = Rule::new("!has(self.elasticsearch) || self.connector == 'elasticsearch'").message("elasticsearch goes with connector elasticsearch"),
    validation = Rule::new("!has(self.httpSink) || self.connector == 'http' || self.connector == 'http-webhook'").message("httpSink goes with connector http")
)]
pub struct SinkConnector {
    /// Unique name among the sinks.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-zA-Z0-9]([a-zA-Z0-9._-]*[a-zA-Z0-9])?$"))]
    pub name: String,
    /// Type of the connector, such as `stdout`, `s3`, `http`, `elasticsearch`.
    #[schemars(length(min = 1, max = 63))]
    pub connector: String,
    /// Topics it reads; `*` stands for any characters.
    #[schemars(length(min = 1, max = 100), inner(length(min = 1, max = 255)))]
    pub topics: Vec<String>,
    /// Group under which its offsets are kept.
    #[schemars(length(min = 1, max = 255))]
    pub consumer_group: String,
    /// Run it.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Where to start without a committed offset.
    #[serde(default)]
    pub start_offset: StartOffset,
    /// Free configuration, with the worker's own keys.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "free_form")]
    pub config: Map<String, Value>,
    /// Secret whose keys become configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub config_secret_ref: Option<String>,
    /// Limit on the rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Object storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Sink>,
    /// Standard output of the worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<StdoutSink>,
    /// Elasticsearch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elasticsearch: Option<ElasticsearchSink>,
    /// Posts to a URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_sink: Option<HttpSink>,
}

/// An object of any content, kept as it is.
fn free_form(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Table {
    /// Schema, or database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub schema: Option<String>,
    /// Table.
    #[schemars(length(min = 1, max = 128))]
    pub table: String,
    /// Topic, if not the source's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub topic: Option<String>,
    /// Columns to capture. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500), inner(length(min = 1, max = 128)))]
    pub columns: Vec<String>,
    /// Columns whose values are hidden, and what stands in their place.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 500))]
    pub column_masks: BTreeMap<String, String>,
}

/// The topic of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceTopic {
    /// Number of partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub partitions: Option<u32>,
    /// Copies of each partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 99))]
    pub replication_factor: Option<u32>,
}

/// PostgreSQL change data capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PostgresCdc {
    /// Replication slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub slot_name: Option<String>,
    /// Publication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub publication: Option<String>,
    /// Whether existing rows are read first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_mode: Option<SnapshotMode>,
    /// Logical decoding plugin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub decoding_plugin: Option<String>,
    /// Tables to capture.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub tables: Vec<Table>,
}

/// `MySQL` change data capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MysqlCdc {
    /// Server id of the replica that the connector pretends to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_295_i64))]
    pub server_id: Option<u32>,
    /// Whether existing rows are read first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_mode: Option<SnapshotMode>,
    /// Tables to capture.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500))]
    pub tables: Vec<Table>,
}

/// Whether existing rows are read first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotMode {
    /// Once, at the first start.
    Initial,
    /// At every start.
    Always,
    /// Never.
    Never,
    /// Only if there is no offset.
    WhenNeeded,
    /// Only them, then stop.
    InitialOnly,
}

/// Polls a URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpSource {
    /// What to poll.
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
    /// Milliseconds between polls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_295_i64))]
    pub poll_interval_ms: Option<u32>,
}

/// Generates records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Datagen {
    /// Pattern of the records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub pattern: Option<String>,
    /// Records a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_295_i64))]
    pub events_per_second: Option<u32>,
    /// How many records in all. Without it, it never ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 9_007_199_254_740_991_i64))]
    pub max_events: Option<u64>,
    /// Seed of the generator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub seed: Option<u64>,
}

/// Object storage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct S3Sink {
    /// Bucket.
    #[schemars(length(min = 3, max = 63))]
    pub bucket: String,
    /// Prefix of the keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub prefix: Option<String>,
    /// Region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub region: Option<String>,
    /// Endpoint, for stores that are not Amazon's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub endpoint: Option<String>,
    /// Format of the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub format: Option<String>,
    /// Compression of the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub compression: Option<String>,
    /// Partitioning of the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub partitioning: Option<String>,
}

/// Standard output of the worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct StdoutSink {
    /// Format of a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub format: Option<String>,
    /// Print topic, partition and offset too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_metadata: Option<bool>,
}

/// Elasticsearch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ElasticsearchSink {
    /// URLs of the nodes.
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 2048)))]
    pub urls: Vec<String>,
    /// Index.
    #[schemars(length(min = 1, max = 255))]
    pub index: String,
}

/// Posts to a URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpSink {
    /// Where to.
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
    /// Method. Default: POST.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    pub method: Option<String>,
    /// Headers. Secrets go through `configSecretRef`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub headers: BTreeMap<String, String>,
    /// Records in one request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub batch_size: Option<u32>,
}

/// Where a sink starts without a committed offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StartOffset {
    /// At the end.
    #[default]
    Latest,
    /// At the beginning.
    Earliest,
    /// At a time.
    Timestamp,
}

/// Limit on the rate of a sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// Records a second; 0 is no limit.
    #[serde(default = "no_limit")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub events_per_second: u64,
    /// How many may come at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub burst_capacity: Option<u64>,
}

defaults! {
    no_limit: u64 = 0_u64;
}
