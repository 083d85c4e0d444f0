// The face towards TypeScript, native/netns.ts: namespaces, sockets inside them, and what concerns the whole process.
#include "netns.h"

#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <net/if.h>
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
#include <cstring>

#include "unique-fd.h"

namespace culvert {
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
