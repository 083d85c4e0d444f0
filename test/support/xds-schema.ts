/**
 * The messages of delta ADS and of the ambient mesh as a schema, written down from the specification (§9.7) and read by the
 * stock protobufjs: what culvert reads and writes by hand is compared with this.
 */
import protobuf from 'protobufjs';

const schema = protobuf.parse(
  `
  syntax = "proto3";
  package xds;
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; }
  message Node { string id = 1; string cluster = 2; google.protobuf.Struct metadata = 3; }
  message DeltaDiscoveryRequest {
    Node node = 1;
    string type_url = 2;
    repeated string resource_names_subscribe = 3;
    repeated string resource_names_unsubscribe = 4;
    map<string, string> initial_resource_versions = 5;
    string response_nonce = 6;
    Status error_detail = 7;
  }
  message Resource { string version = 1; Any resource = 2; string name = 3; repeated string aliases = 4; }
  message DeltaDiscoveryResponse {
    string system_version_info = 1;
    repeated Resource resources = 2;
    string type_url = 4;
    string nonce = 5;
    repeated string removed_resources = 6;
  }

  message Address { oneof type { Workload workload = 1; Service service = 2; } }
  enum TunnelProtocol { NONE = 0; HBONE = 1; LEGACY_ISTIO_MTLS = 2; }
  enum WorkloadType { DEPLOYMENT = 0; CRONJOB = 1; POD = 2; JOB = 3; }
  enum WorkloadStatus { HEALTHY = 0; UNHEALTHY = 1; }
  enum NetworkMode { STANDARD = 0; HOST_NETWORK = 1; }
  message UInt32Value { uint32 value = 1; }
  message Port { uint32 service_port = 1; uint32 target_port = 2; uint32 app_protocol = 3; }
  message PortList { repeated Port ports = 1; }
  message NamespacedHostname { string namespace = 1; string hostname = 2; }
  message NetworkAddress { string network = 1; bytes address = 2; optional uint32 length = 3; }
  message GatewayAddress {
    oneof destination { NamespacedHostname hostname = 1; NetworkAddress address = 2; }
    uint32 hbone_mtls_port = 3;
  }
  message ApplicationTunnel { enum Protocol { NONE = 0; PROXY = 1; } Protocol protocol = 1; uint32 port = 2; }
  message Locality { string region = 1; string zone = 2; string subzone = 3; }
  message Workload {
    string name = 1;
    string namespace = 2;
    repeated bytes addresses = 3;
    string network = 4;
    TunnelProtocol tunnel_protocol = 5;
    string trust_domain = 6;
    string service_account = 7;
    GatewayAddress waypoint = 8;
    string node = 9;
    string canonical_name = 10;
    string canonical_revision = 11;
    WorkloadType workload_type = 12;
    string workload_name = 13;
    bool native_tunnel = 14;
    repeated string authorization_policies = 16;
    WorkloadStatus status = 17;
    string cluster_id = 18;
    GatewayAddress network_gateway = 19;
    string uid = 20;
    string hostname = 21;
    map<string, PortList> services = 22;
    ApplicationTunnel application_tunnel = 23;
    Locality locality = 24;
    NetworkMode network_mode = 25;
    UInt32Value capacity = 27;
  }
  message LoadBalancing {
    enum Scope { UNSPECIFIED_SCOPE = 0; REGION = 1; ZONE = 2; SUBZONE = 3; NODE = 4; CLUSTER = 5; NETWORK = 6; }
    enum Mode { UNSPECIFIED_MODE = 0; STRICT = 1; FAILOVER = 2; PASSTHROUGH = 3; }
    enum HealthPolicy { ONLY_HEALTHY = 0; ALLOW_ALL = 1; }
    repeated Scope routing_preference = 1;
    Mode mode = 2;
    HealthPolicy health_policy = 3;
  }
  message WeightedWaypoint { GatewayAddress destination = 1; uint32 weight = 2; }
  message Service {
    string name = 1;
    string namespace = 2;
    string hostname = 3;
    repeated NetworkAddress addresses = 4;
    repeated Port ports = 5;
    repeated string subject_alt_names = 6;
    GatewayAddress waypoint = 7;
    LoadBalancing load_balancing = 8;
    uint32 ip_families = 9;
    bool canonical = 11;
    repeated WeightedWaypoint weighted_waypoints = 13;
    uint32 visibility = 14;
  }

  message Empty {}
  message StringMatch { oneof match { string exact = 1; string prefix = 2; string suffix = 3; Empty presence = 4; } }
  message BlockMatch { bytes address = 1; uint32 length = 2; }
  message ServiceAccountMatch { string namespace = 1; string service_account = 2; }
  message Match {
    repeated StringMatch namespaces = 1;
    repeated StringMatch not_namespaces = 2;
    repeated StringMatch principals = 3;
    repeated StringMatch not_principals = 4;
    repeated BlockMatch source_ips = 5;
    repeated BlockMatch not_source_ips = 6;
    repeated BlockMatch destination_ips = 7;
    repeated BlockMatch not_destination_ips = 8;
    repeated uint32 destination_ports = 9;
    repeated uint32 not_destination_ports = 10;
    repeated ServiceAccountMatch service_accounts = 11;
    repeated ServiceAccountMatch not_service_accounts = 12;
  }
  message Clause { repeated Match matches = 2; }
  message Rule { repeated Clause clauses = 1; }
  message Authorization {
    string name = 1;
    string namespace = 2;
    enum Scope { GLOBAL = 0; NAMESPACE = 1; WORKLOAD_SELECTOR = 2; }
    enum Action { ALLOW = 0; DENY = 1; }
    Scope scope = 3;
    Action action = 4;
    repeated Rule rules = 5;
    bool dry_run = 6;
  }
`,
).root;
schema.addJSON(protobuf.common.get('google/protobuf/struct.proto')!.nested!);

export type Json = Readonly<Record<string, unknown>>;

/** Encodes a message from its fields; enumerations by name or number. */
export function encode(type: string, fields: Json): Buffer {
  const found = schema.lookupType(`xds.${type}`);
  return Buffer.from(found.encode(found.fromObject(fields)).finish());
}

/** The fields of a message, with numbers for enumerations and `{}` for maps that are empty. */
export function decode(type: string, bytes: Uint8Array): Record<string, unknown> {
  const found = schema.lookupType(`xds.${type}`);
  return found.toObject(found.decode(bytes), { defaults: true, bytes: Buffer, oneofs: false });
}
