#include "netns.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <uv.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <random>

// linux/netfilter_ipv4.h and its IPv6 twin clash with netinet/in.h; both options have the same number.
#ifndef SO_ORIGINAL_DST
#define SO_ORIGINAL_DST 80
#endif
#ifndef IPV6_TRANSPARENT
#define IPV6_TRANSPARENT 75
#endif
#ifndef IPV6_FREEBIND
#define IPV6_FREEBIND 78
#endif

namespace culvert {
namespace {

/// Closes its descriptor unless released.
class UniqueFd {
 public:
  explicit UniqueFd(int fd = -1) : fd_(fd) {}
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  ~UniqueFd() { Reset(-1); }
  int get() const { return fd_; }
  int Release() {
    int fd = fd_;
    fd_ = -1;
    return fd;
  }
  void Reset(int fd) {
    if (fd_ >= 0) close(fd_);
    fd_ = fd;
  }

 private:
  int fd_;
};

bool Fail(SocketError* error, const char* step) {
  error->error = errno;
  error->step = step;
  return false;
}

/// The namespace this thread belongs to, opened once per thread and closed with it. -1 when /proc refuses.
int OwnNetns() {
  thread_local UniqueFd own(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  if (own.get() < 0) own.Reset(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  return own.get();
}

}  // namespace

int SocketIn(int netns, int family, int type, int protocol, SocketError* error) {
  const int flags = SOCK_CLOEXEC | SOCK_NONBLOCK;
  if (netns == kOwnNetns) {
    int fd = socket(family, type | flags, protocol);
    if (fd < 0) Fail(error, "socket");
    return fd;
  }
  const int own = OwnNetns();
  if (own < 0) {
    Fail(error, "open of the thread's own network namespace");
    return -1;
  }
  if (setns(netns, CLONE_NEWNET) != 0) {
    Fail(error, "setns");
    return -1;
  }
  const int fd = socket(family, type | flags, protocol);
  if (fd < 0) Fail(error, "socket");
  if (setns(own, CLONE_NEWNET) != 0) {
    Napi::Error::Fatal("culvert", "cannot return from a pod's network namespace");
  }
  return fd;
}

namespace {

int SetInt(int fd, int level, int option, int value) { return setsockopt(fd, level, option, &value, sizeof value); }

socklen_t ToSockaddr(const Endpoint& endpoint, sockaddr_storage* out) {
  memset(out, 0, sizeof *out);
  if (endpoint.family == AF_INET) {
    auto* v4 = reinterpret_cast<sockaddr_in*>(out);
    v4->sin_family = AF_INET;
    v4->sin_port = htons(endpoint.port);
    memcpy(&v4->sin_addr, endpoint.address, 4);
    return sizeof *v4;
  }
  auto* v6 = reinterpret_cast<sockaddr_in6*>(out);
  v6->sin6_family = AF_INET6;
  v6->sin6_port = htons(endpoint.port);
  v6->sin6_scope_id = endpoint.scope;
  memcpy(&v6->sin6_addr, endpoint.address, 16);
  return sizeof *v6;
}

void FromSockaddr(const sockaddr_storage& from, Endpoint* out) {
  *out = Endpoint{};
  if (from.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(from);
    out->port = ntohs(v6.sin6_port);
    if (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr)) {
      memcpy(out->address, v6.sin6_addr.s6_addr + 12, 4);
      return;
    }
    out->family = AF_INET6;
    if (IN6_IS_ADDR_LINKLOCAL(&v6.sin6_addr)) out->scope = v6.sin6_scope_id;
    memcpy(out->address, &v6.sin6_addr, 16);
    return;
  }
  const auto& v4 = reinterpret_cast<const sockaddr_in&>(from);
  out->port = ntohs(v4.sin_port);
  memcpy(out->address, &v4.sin_addr, 4);
}

bool SameIp(const Endpoint& a, const Endpoint& b) {
  return a.family == b.family && memcmp(a.address, b.address, a.family == AF_INET ? 4 : 16) == 0;
}

bool IsWildcardV6(const Endpoint& endpoint) {
  static const uint8_t zero[16] = {};
  return endpoint.family == AF_INET6 && memcmp(endpoint.address, zero, 16) == 0;
}

/// The mark is what keeps the agent's own traffic out of the capture rules, so only its failure is an error: a
/// connection without keep-alive still works.
bool ApplyStreamOptions(int fd, const StreamOptions& options, SocketError* error) {
  if (options.mark != 0 && setsockopt(fd, SOL_SOCKET, SO_MARK, &options.mark, sizeof options.mark) != 0) {
    return Fail(error, "setsockopt SO_MARK");
  }
  SetInt(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  if (options.keep_alive.enabled) {
    SetInt(fd, IPPROTO_TCP, TCP_KEEPIDLE, options.keep_alive.time_seconds);
    SetInt(fd, IPPROTO_TCP, TCP_KEEPINTVL, options.keep_alive.interval_seconds);
    SetInt(fd, IPPROTO_TCP, TCP_KEEPCNT, options.keep_alive.retries);
    SetInt(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  }
  if (options.user_timeout_ms != 0) {
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &options.user_timeout_ms, sizeof options.user_timeout_ms);
  }
  return true;
}

/// Ports of connections made in a client's name. The client's own system takes its ports from 32768 on (the default of
/// ip_local_port_range): were one of them chosen here that the client uses towards the same pod, conntrack would take
/// the two connections for one, and both would break.
constexpr uint16_t kFirstBorrowedPort = 10240;
constexpr uint16_t kLastBorrowedPort = 32767;
/// Attempts to find a free one before the choice is left to the kernel.
constexpr int kPortAttempts = 8;

uint16_t BorrowedPort() {
  thread_local std::minstd_rand random{std::random_device{}()};
  return std::uniform_int_distribution<uint16_t>{kFirstBorrowedPort, kLastBorrowedPort}(random);
}

/// Gives the socket the client's address as its own, with a port, or with one that connect(2) chooses when it is 0.
/// Returns 0 or the errno of the step that refused.
int TakeOverSource(int fd, const Endpoint& source, uint16_t port) {
  const bool v4 = source.family == AF_INET;
  const int level = v4 ? SOL_IP : SOL_IPV6;
  if (SetInt(fd, level, v4 ? IP_TRANSPARENT : IPV6_TRANSPARENT, 1) != 0) return errno;
  if (SetInt(fd, level, v4 ? IP_FREEBIND : IPV6_FREEBIND, 1) != 0) return errno;
  // One port may serve many destinations: otherwise a busy client runs out of them. IP_BIND_ADDRESS_NO_PORT leaves the
  // choice to connect(2); older kernels lack it, and the bind below then picks a port itself.
  if (port == 0) SetInt(fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1);
  else SetInt(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  Endpoint local = source;
  local.port = port;
  sockaddr_storage address;
  const socklen_t length = ToSockaddr(local, &address);
  return bind(fd, reinterpret_cast<sockaddr*>(&address), length) == 0 ? 0 : errno;
}

}  // namespace

size_t FormatIp(const Endpoint& endpoint, char (&out)[kIpTextSize]) {
  const uint8_t* bytes = endpoint.address;
  static const uint8_t zero[12] = {};
  if (endpoint.family == AF_INET6 && memcmp(bytes, zero, 12) == 0 && (bytes[12] != 0 || bytes[13] != 0)) {
    // inet_ntop would write the last half of ::/96 as an IPv4 address, which no canonical text does (RFC 5952 §5).
    return snprintf(out, sizeof out, "::%x:%x", bytes[12] << 8 | bytes[13], bytes[14] << 8 | bytes[15]);
  }
  inet_ntop(endpoint.family, bytes, out, sizeof out);
  size_t length = strlen(out);
  if (endpoint.scope != 0) length += snprintf(out + length, sizeof out - length, "%%%u", endpoint.scope);
  return length;
}

bool ParseIp(const char* text, Endpoint* out) {
  sockaddr_storage parsed = {};
  auto* v4 = reinterpret_cast<sockaddr_in*>(&parsed);
  if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    FromSockaddr(parsed, out);
    return true;
  }
  char address[INET6_ADDRSTRLEN];
  const char* percent = strchr(text, '%');
  const size_t length = percent != nullptr ? static_cast<size_t>(percent - text) : strlen(text);
  if (length >= sizeof address) return false;
  memcpy(address, text, length);
  address[length] = '\0';
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&parsed);
  if (inet_pton(AF_INET6, address, &v6->sin6_addr) != 1) return false;
  v6->sin6_family = AF_INET6;
  if (percent != nullptr) {
    char* end = nullptr;
    errno = 0;
    const unsigned long scope = strtoul(percent + 1, &end, 10);
    if (end == percent + 1 || *end != '\0' || errno != 0 || scope > UINT32_MAX) return false;
    v6->sin6_scope_id = static_cast<uint32_t>(scope);
  }
  FromSockaddr(parsed, out);
  return true;
}

bool ListenTcp(int netns, const Endpoint& local, const ListenOptions& options, Listener* out, SocketError* error) {
  Endpoint address = local;
  UniqueFd fd(SocketIn(netns, address.family, SOCK_STREAM, 0, error));
  if (fd.get() < 0 && error->error == EAFNOSUPPORT && options.dual_stack && IsWildcardV6(address)) {
    // A kernel without IPv6: the wildcard it does have serves the same purpose.
    address = Endpoint{};
    address.port = local.port;
    fd.Reset(SocketIn(netns, AF_INET, SOCK_STREAM, 0, error));
  }
  if (fd.get() < 0) return false;
  if (!ApplyStreamOptions(fd.get(), options.stream, error)) return false;
  SetInt(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  const bool reuse_port = options.reuse_port && SetInt(fd.get(), SOL_SOCKET, SO_REUSEPORT, 1) == 0;
  if (address.family == AF_INET6 && SetInt(fd.get(), SOL_IPV6, IPV6_V6ONLY, options.dual_stack ? 0 : 1) != 0) {
    return Fail(error, "setsockopt IPV6_V6ONLY");
  }
  bool transparent = false;
  if (options.transparent != Transparent::kNo) {
    // The IPv4 option governs both families of a socket that is only asked about its own address.
    transparent = SetInt(fd.get(), SOL_IP, IP_TRANSPARENT, 1) == 0;
    if (!transparent && options.transparent == Transparent::kMust) return Fail(error, "setsockopt IP_TRANSPARENT");
  }
  sockaddr_storage storage;
  const socklen_t length = ToSockaddr(address, &storage);
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&storage), length) != 0) return Fail(error, "bind");
  if (listen(fd.get(), options.backlog) != 0) return Fail(error, "listen");
  out->fd = fd.Release();
  out->transparent = transparent;
  out->reuse_port = reuse_port;
  return true;
}

bool ConnectTcp(int netns, const Endpoint& target, const Endpoint* source, const StreamOptions& options,
                Connecting* out, SocketError* error) {
  sockaddr_storage storage;
  const socklen_t length = ToSockaddr(target, &storage);
  const bool takes_over = source != nullptr && !SameIp(*source, target);
  for (int attempt = takes_over ? 1 : kPortAttempts;; attempt++) {
    const bool is_last = attempt >= kPortAttempts;
    UniqueFd fd(SocketIn(netns, target.family, SOCK_STREAM, 0, error));
    if (fd.get() < 0) return false;
    if (!ApplyStreamOptions(fd.get(), options, error)) return false;
    out->spoof_error = 0;
    if (takes_over) {
      const uint16_t port = is_last ? 0 : BorrowedPort();
      out->spoof_error = source->family == target.family ? TakeOverSource(fd.get(), *source, port) : EAFNOSUPPORT;
      if (out->spoof_error == EADDRINUSE && !is_last) continue;
    }
    if (connect(fd.get(), reinterpret_cast<sockaddr*>(&storage), length) != 0 && errno != EINPROGRESS) {
      // The port is taken towards this very destination.
      if (errno == EADDRNOTAVAIL && !is_last) continue;
      return Fail(error, "connect");
    }
    out->fd = fd.Release();
    return true;
  }
}

bool BindUdp(int netns, const Endpoint& local, uint32_t mark, bool reuse_port, int* fd_out, SocketError* error) {
  UniqueFd fd(SocketIn(netns, local.family, SOCK_DGRAM, 0, error));
  if (fd.get() < 0) return false;
  if (mark != 0 && setsockopt(fd.get(), SOL_SOCKET, SO_MARK, &mark, sizeof mark) != 0) {
    return Fail(error, "setsockopt SO_MARK");
  }
  if (reuse_port && SetInt(fd.get(), SOL_SOCKET, SO_REUSEPORT, 1) != 0) return Fail(error, "setsockopt SO_REUSEPORT");
  sockaddr_storage storage;
  const socklen_t length = ToSockaddr(local, &storage);
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&storage), length) != 0) return Fail(error, "bind");
  *fd_out = fd.Release();
  return true;
}

int AcceptOne(int listen_fd, Destination destination, AcceptedSocket* out) {
  sockaddr_storage address;
  socklen_t length = sizeof address;
  int fd;
  do {
    length = sizeof address;
    fd = accept4(listen_fd, reinterpret_cast<sockaddr*>(&address), &length, SOCK_CLOEXEC | SOCK_NONBLOCK);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) return -errno;
  FromSockaddr(address, &out->peer);
  out->original = false;
  if (destination == Destination::kOriginal) {
    // Conntrack keeps one table per family; the peer's family names the only one that can know this connection.
    const int level = out->peer.family == AF_INET ? SOL_IP : SOL_IPV6;
    length = sizeof address;
    memset(&address, 0, sizeof address);
    out->original = getsockopt(fd, level, SO_ORIGINAL_DST, &address, &length) == 0;
  }
  if (!out->original) {
    length = sizeof address;
    if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) {
      const int error = errno;
      close(fd);
      return -error;
    }
  }
  FromSockaddr(address, &out->destination);
  out->fd = fd;
  return 0;
}

// ---- The face towards TypeScript (declared in native/netns.ts) ----

namespace {

/// Room for what passes a link while its reader does something else, in bytes.
constexpr int kCaptureBuffer = 8 << 20;

[[noreturn]] void ThrowWithCode(Napi::Env env, const char* code, const std::string& message) {
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", Napi::String::New(env, code));
  throw error;
}

[[noreturn]] void ThrowErrno(Napi::Env env, int error, const std::string& what) {
  ThrowWithCode(env, uv_err_name(-error), what + ": " + strerror(error));
}

std::string Named(const Endpoint& endpoint) {
  char ip[kIpTextSize];
  FormatIp(endpoint, ip);
  const std::string port = std::to_string(endpoint.port);
  return endpoint.family == AF_INET ? std::string(ip) + ":" + port : "[" + std::string(ip) + "]:" + port;
}

int32_t ToInt(const Napi::Value& value, const char* name) {
  if (!value.IsNumber()) throw Napi::TypeError::New(value.Env(), std::string(name) + " must be a number");
  return value.As<Napi::Number>().Int32Value();
}

Endpoint ToEndpoint(const Napi::Value& ip, const Napi::Value& port) {
  Napi::Env env = ip.Env();
  if (!ip.IsString()) throw Napi::TypeError::New(env, "an IP address must be a string");
  char text[kIpTextSize];
  size_t length = 0;
  napi_get_value_string_utf8(env, ip, text, sizeof text, &length);
  Endpoint endpoint;
  // A text that fills the buffer was cut off, and is longer than any address; one with a NUL inside is none either.
  if (length + 1 >= sizeof text || strlen(text) != length || !ParseIp(text, &endpoint)) {
    ThrowWithCode(env, "EINVAL", "not an IP address: " + std::string(text, length));
  }
  const int32_t number = port.IsUndefined() ? 0 : ToInt(port, "port");
  if (number < 0 || number > 65535) ThrowWithCode(env, "EINVAL", "not a port: " + std::to_string(number));
  endpoint.port = static_cast<uint16_t>(number);
  return endpoint;
}

/// keepAliveTime, keepAliveInterval, keepAliveRetries, userTimeoutMs at `first`…; a time of 0 means no keep-alive.
StreamOptions ToStreamOptions(const Napi::CallbackInfo& info, size_t first) {
  StreamOptions options;
  options.mark = info[first].As<Napi::Number>().Uint32Value();
  options.keep_alive.time_seconds = ToInt(info[first + 1], "keepalive.time");
  options.keep_alive.interval_seconds = ToInt(info[first + 2], "keepalive.interval");
  options.keep_alive.retries = ToInt(info[first + 3], "keepalive.retries");
  options.keep_alive.enabled = options.keep_alive.time_seconds > 0;
  options.user_timeout_ms = info[first + 4].As<Napi::Number>().Uint32Value();
  return options;
}

Napi::Value ListenTcpJs(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const Endpoint local = ToEndpoint(info[1], info[2]);
  ListenOptions options;
  options.stream = ToStreamOptions(info, 3);
  options.reuse_port = info[8].ToBoolean();
  options.dual_stack = info[9].ToBoolean();
  options.transparent = static_cast<Transparent>(ToInt(info[10], "transparent"));
  options.backlog = ToInt(info[11], "backlog");
  Listener listener;
  SocketError error;
  if (!ListenTcp(ToInt(info[0], "netns"), local, options, &listener, &error)) {
    ThrowErrno(env, error.error, "cannot listen on " + Named(local) + ": " + error.step);
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("fd", listener.fd);
  result.Set("transparent", listener.transparent);
  result.Set("reusePort", listener.reuse_port);
  return result;
}

Napi::Value ConnectTcpJs(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const Endpoint target = ToEndpoint(info[1], info[2]);
  const bool spoof = !info[3].IsNull();
  Endpoint source;
  if (spoof) source = ToEndpoint(info[3], env.Undefined());
  Connecting connecting;
  SocketError error;
  if (!ConnectTcp(ToInt(info[0], "netns"), target, spoof ? &source : nullptr, ToStreamOptions(info, 4),
                           &connecting, &error)) {
    ThrowErrno(env, error.error, "cannot connect to " + Named(target) + ": " + error.step);
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("fd", connecting.fd);
  result.Set("spoofError", connecting.spoof_error == 0
                               ? env.Null()
                               : Napi::Value(Napi::String::New(env, uv_err_name(-connecting.spoof_error))));
  return result;
}

Napi::Value BindUdpJs(const Napi::CallbackInfo& info) {
  const Endpoint local = ToEndpoint(info[1], info[2]);
  int fd = -1;
  SocketError error;
  if (!BindUdp(ToInt(info[0], "netns"), local, info[3].As<Napi::Number>().Uint32Value(),
                        info[4].ToBoolean(), &fd, &error)) {
    ThrowErrno(info.Env(), error.error, "cannot bind UDP " + Named(local) + ": " + error.step);
  }
  return Napi::Number::New(info.Env(), fd);
}

Napi::Object ToAddress(Napi::Env env, const Endpoint& endpoint) {
  char ip[kIpTextSize];
  const size_t length = FormatIp(endpoint, ip);
  Napi::Object address = Napi::Object::New(env);
  address.Set("ip", Napi::String::New(env, ip, length));
  address.Set("port", endpoint.port);
  return address;
}

Napi::Value AcceptTcpJs(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  AcceptedSocket accepted;
  const int status = AcceptOne(
      ToInt(info[0], "fd"), info[1].ToBoolean() ? Destination::kOriginal : Destination::kLocal,
      &accepted);
  if (status == -EAGAIN) return env.Null();
  if (status != 0) ThrowErrno(env, -status, "accept");
  Napi::Object result = Napi::Object::New(env);
  result.Set("fd", accepted.fd);
  result.Set("peer", ToAddress(env, accepted.peer));
  result.Set("destination", ToAddress(env, accepted.destination));
  result.Set("original", accepted.original);
  return result;
}

/// True when `fd` is a network namespace. Kernels before 4.11 cannot be asked for the type; there the name of the
/// descriptor's file tells, provided that it lies in the namespace file system.
bool IsNetns(int fd) {
  const int type = ioctl(fd, NS_GET_NSTYPE);
  if (type >= 0) return type == CLONE_NEWNET;
  struct statfs filesystem;
  if (fstatfs(fd, &filesystem) != 0 || filesystem.f_type != NSFS_MAGIC) return false;
  char target[32] = {};
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  return readlink(link.c_str(), target, sizeof target - 1) > 0 && strncmp(target, "net:[", 5) == 0;
}

Napi::Value InspectNetns(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const int fd = ToInt(info[0], "fd");
  struct stat status;
  if (fstat(fd, &status) != 0) ThrowErrno(env, errno, "cannot look at descriptor " + std::to_string(fd));
  if (!IsNetns(fd)) {
    ThrowWithCode(env, "NOT_A_NETNS", "descriptor " + std::to_string(fd) + " is not a network namespace");
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("ino", static_cast<double>(status.st_ino));
  result.Set("dev", static_cast<double>(status.st_dev));
  return result;
}

Napi::Value OpenNetns(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const std::string path = info[0].As<Napi::String>();
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) ThrowErrno(env, errno, "cannot open the network namespace " + path);
  if (!IsNetns(fd.get())) ThrowWithCode(env, "NOT_A_NETNS", path + " is not a network namespace");
  return Napi::Number::New(env, fd.Release());
}

void CheckCapabilities(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const uint32_t mark = info[0].As<Napi::Number>().Uint32Value();
  const int own = OwnNetns();
  if (own < 0 || setns(own, CLONE_NEWNET) != 0) {
    ThrowErrno(env, errno, "failed to set netns; make sure that the agent has CAP_SYS_ADMIN");
  }
  if (mark == 0) return;
  UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (fd.get() < 0) ThrowErrno(env, errno, "cannot make a socket");
  if (setsockopt(fd.get(), SOL_SOCKET, SO_MARK, &mark, sizeof mark) != 0) {
    ThrowErrno(env, errno,
               "failed to set mark on socket; make sure that the agent has CAP_NET_RAW and CAP_NET_ADMIN");
  }
}

/// openPacketSocket(netns, interface): every frame that passes the interface, both ways. Not for the agent: the demo and
/// the tests look at links with it.
Napi::Value OpenPacketSocket(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const std::string interface = info[1].As<Napi::String>();
  SocketError error;
  // Without a protocol nothing arrives until the socket is bound to the interface.
  UniqueFd fd(SocketIn(ToInt(info[0], "netns"), AF_PACKET, SOCK_RAW, 0, &error));
  if (fd.get() < 0) ThrowErrno(env, error.error, std::string("cannot capture packets: ") + error.step);
  ifreq request = {};
  if (interface.size() >= sizeof request.ifr_name) ThrowErrno(env, ENODEV, "no interface " + interface);
  memcpy(request.ifr_name, interface.data(), interface.size());
  if (ioctl(fd.get(), SIOCGIFINDEX, &request) != 0) ThrowErrno(env, errno, "no interface " + interface);
  // More than the system's limit where that is allowed; what does not fit is lost.
  if (SetInt(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE, kCaptureBuffer) != 0) {
    SetInt(fd.get(), SOL_SOCKET, SO_RCVBUF, kCaptureBuffer);
  }
  sockaddr_ll address = {};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ETH_P_ALL);
  address.sll_ifindex = request.ifr_ifindex;
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    ThrowErrno(env, errno, "cannot capture packets of " + interface);
  }
  return Napi::Number::New(env, fd.Release());
}

void SetSoLinger0(const Napi::CallbackInfo& info) {
  const linger reset = {1, 0};
  if (setsockopt(ToInt(info[0], "fd"), SOL_SOCKET, SO_LINGER, &reset, sizeof reset) != 0) {
    ThrowErrno(info.Env(), errno, "setsockopt SO_LINGER");
  }
}

void CloseFd(const Napi::CallbackInfo& info) {
  // EINTR closes the descriptor all the same on Linux; a retry could close somebody else's.
  const int fd = ToInt(info[0], "fd");
  if (close(fd) != 0 && errno != EINTR) ThrowErrno(info.Env(), errno, "cannot close descriptor " + std::to_string(fd));
}

Napi::Value DupFd(const Napi::CallbackInfo& info) {
  const int fd = ToInt(info[0], "fd");
  const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) ThrowErrno(info.Env(), errno, "cannot duplicate descriptor " + std::to_string(fd));
  return Napi::Number::New(info.Env(), copy);
}

Napi::Value RaiseNofileLimit(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) ThrowErrno(env, errno, "getrlimit RLIMIT_NOFILE");
  if (limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) ThrowErrno(env, errno, "setrlimit RLIMIT_NOFILE");
  }
  return Napi::Number::New(env, static_cast<double>(limit.rlim_cur));
}

/// denyDumps(): no core file of this process, and nobody without CAP_SYS_PTRACE reads its memory.
void DenyDumps(const Napi::CallbackInfo& info) {
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) ThrowErrno(info.Env(), errno, "prctl PR_SET_DUMPABLE");
}

}  // namespace

void InitNetns(Napi::Env env, Napi::Object exports) {
  exports.Set("inspectNetns", Napi::Function::New<InspectNetns>(env, "inspectNetns"));
  exports.Set("openNetns", Napi::Function::New<OpenNetns>(env, "openNetns"));
  exports.Set("checkCapabilities", Napi::Function::New<CheckCapabilities>(env, "checkCapabilities"));
  exports.Set("listenTcp", Napi::Function::New<ListenTcpJs>(env, "listenTcp"));
  exports.Set("connectTcp", Napi::Function::New<ConnectTcpJs>(env, "connectTcp"));
  exports.Set("acceptTcp", Napi::Function::New<AcceptTcpJs>(env, "acceptTcp"));
  exports.Set("bindUdp", Napi::Function::New<BindUdpJs>(env, "bindUdp"));
  exports.Set("openPacketSocket", Napi::Function::New<OpenPacketSocket>(env, "openPacketSocket"));
  exports.Set("setSoLinger0", Napi::Function::New<SetSoLinger0>(env, "setSoLinger0"));
  exports.Set("closeFd", Napi::Function::New<CloseFd>(env, "closeFd"));
  exports.Set("dupFd", Napi::Function::New<DupFd>(env, "dupFd"));
  exports.Set("denyDumps", Napi::Function::New<DenyDumps>(env, "denyDumps"));
  exports.Set("raiseNofileLimit", Napi::Function::New<RaiseNofileLimit>(env, "raiseNofileLimit"));
}

}  // namespace culvert
