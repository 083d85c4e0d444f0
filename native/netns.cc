#include "netns.h"

#include "unique-fd.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sched.h>
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

namespace culvert {
namespace {

bool Fail(SocketError* error, const char* step) {
  error->error = errno;
  error->step = step;
  return false;
}

}  // namespace

int OwnNetns() {
  thread_local UniqueFd own(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  if (own.get() < 0) own.Reset(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  return own.get();
}

int SetInt(int fd, int level, int option, int value) { return setsockopt(fd, level, option, &value, sizeof value); }

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
  // This allows bind(2) to foreign addresses as well; IP_FREEBIND would add nothing.
  if (SetInt(fd, level, v4 ? IP_TRANSPARENT : IPV6_TRANSPARENT, 1) != 0) return errno;
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

}  // namespace culvert
