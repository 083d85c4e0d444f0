// Sockets made inside the network namespace of a pod, and what a listener needs to know of an accepted connection.
//
// A thread enters a namespace only for socket(2): the socket keeps the namespace it was made in, so bind, listen and
// connect happen after the thread is back. Nothing here is shared between threads.
#pragma once

#include <napi.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>
#include <string>

namespace culvert {

/// An IP address and port in the form the routing code speaks: v4-mapped IPv6 is already plain IPv4.
struct Endpoint {
  /// AF_INET or AF_INET6.
  sa_family_t family = AF_INET;
  /// Host byte order.
  uint16_t port = 0;
  /// Interface index of a link-local IPv6 address, otherwise 0.
  uint32_t scope = 0;
  /// Network byte order; IPv4 uses the first four.
  uint8_t address[16] = {};
};

/// Room for the longest text FormatIp writes, terminator included: an IPv6 address, '%' and an interface index.
constexpr size_t kIpTextSize = INET6_ADDRSTRLEN + 12;

/// Writes the canonical text of the address ("10.0.0.1", "fd00::1", "fe80::1%3") and returns its length.
size_t FormatIp(const Endpoint& endpoint, char (&out)[kIpTextSize]);

/// Reads what FormatIp writes. Returns false when the text is not an IP address.
bool ParseIp(const char* text, Endpoint* out);

struct KeepAlive {
  bool enabled = false;
  int time_seconds = 0;
  int interval_seconds = 0;
  int retries = 0;
};

/// TCP options a listener hands down to every connection it accepts (Linux copies them to the child), and that
/// outgoing sockets get directly. TCP_NODELAY is always set.
struct StreamOptions {
  /// SO_MARK; 0 leaves it alone.
  uint32_t mark = 0;
  KeepAlive keep_alive;
  /// TCP_USER_TIMEOUT in milliseconds; 0 leaves the system's default.
  unsigned user_timeout_ms = 0;
};

enum class Transparent { kNo, kTry, kMust };

struct ListenOptions {
  StreamOptions stream;
  bool reuse_port = true;
  /// Accept IPv4 on an IPv6 wildcard listener; when the namespace has no IPv6 the listener becomes an IPv4 one.
  bool dual_stack = true;
  Transparent transparent = Transparent::kNo;
  int backlog = 128;
};

/// Why a call failed: an errno and the step it came from. `step` is a string literal.
struct SocketError {
  int error = 0;
  const char* step = "";
};

/// A namespace descriptor, or kOwnNetns to stay in the namespace of the process.
constexpr int kOwnNetns = -1;

/// The namespace this thread belongs to, opened once per thread and closed with it. -1 when /proc refuses.
int OwnNetns();

/// setsockopt(2) with an int.
int SetInt(int fd, int level, int option, int value);

/// socket(2) inside `netns`, close-on-exec and non-blocking; -1 with `error` when that fails. The thread is back in its own
/// namespace when this returns; if it cannot get back the process ends, because every later socket of this thread would
/// silently belong to somebody's pod.
int SocketIn(int netns, int family, int type, int protocol, SocketError* error);

struct Listener {
  int fd = -1;
  bool transparent = false;
  /// False when SO_REUSEPORT was asked for and refused.
  bool reuse_port = false;
};

struct Connecting {
  int fd = -1;
  /// errno of the step that kept the source address from being taken over; 0 when it was, or was not asked for.
  int spoof_error = 0;
};

bool ListenTcp(int netns, const Endpoint& local, const ListenOptions& options, Listener* out, SocketError* error);

/// Starts a non-blocking connect. `source` may be null; one that equals the target's IP is ignored (a pod calling
/// itself). A source that cannot be taken over is reported in `spoof_error` and the connect goes on without it.
bool ConnectTcp(int netns, const Endpoint& target, const Endpoint* source, const StreamOptions& options,
                Connecting* out, SocketError* error);

bool BindUdp(int netns, const Endpoint& local, uint32_t mark, bool reuse_port, int* fd, SocketError* error);

/// Which destination AcceptOne reports.
enum class Destination {
  /// The address the client dialled, before REDIRECT changed it; the local address when nothing was redirected.
  kOriginal,
  /// The address of this end of the connection. One look-up in conntrack cheaper.
  kLocal,
};

struct AcceptedSocket {
  int fd = -1;
  Endpoint peer;
  Endpoint destination;
  /// False when conntrack knew no original destination and `destination` is the local address.
  bool original = false;
};

/// Accepts one connection, non-blocking and close-on-exec, with the options of its listener.
/// Returns 0, or the negated errno (-EAGAIN: none is waiting). A connection that died in the queue is -ECONNABORTED:
/// go on with the next one.
int AcceptOne(int listen_fd, Destination destination, AcceptedSocket* out);

/// Adds the functions of native/netns.ts to the addon.
void InitNetns(Napi::Env env, Napi::Object exports);

}  // namespace culvert
