#include "netlink.h"

#include <linux/netlink.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <string>
#include <vector>

#include "netns.h"

namespace culvert {
namespace {

/// More than the kernel puts into one packet of answers.
constexpr size_t kReceiveSize = 64 << 10;

/// Far more than all answers to one request of ours, of which most are a status.
constexpr size_t kMaxAnswer = 1 << 20;

/// Of reading the answers, all of which are queued by then.
constexpr std::chrono::seconds kMaxReceiveTime(5);

Napi::Error ErrnoError(Napi::Env env, int error, const char* step) {
  Napi::Error made = Napi::Error::New(env, std::string("netlink: ") + step + ": " + strerror(error));
  made.Set("code", Napi::String::New(env, uv_err_name(-error)));
  return made;
}

/// Closes on a thread of the pool: what nftables has replaced is only then freed, which waits for every processor
/// (10 ms and more).
class Close : public Napi::AsyncWorker {
 public:
  Close(Napi::Env env, int fd) : AsyncWorker(env, "netlink-close"), fd_(fd) {}

 protected:
  void Execute() override { close(fd_); }

 private:
  const int fd_;
};

/// One request and its answers, on a thread of the pool because the kernel may let the caller wait for its locks. It has
/// done everything and queued every answer when send returns; only a dump goes on while it is read.
class Exchange : public Napi::AsyncWorker {
 public:
  /// Takes over the socket.
  Exchange(Napi::Env env, int fd, const Napi::Uint8Array& request)
      : AsyncWorker(env, "netlink"),
        deferred_(Napi::Promise::Deferred::New(env)),
        fd_(fd),
        request_(request.Data(), request.Data() + request.ByteLength()) {}
  Napi::Promise Promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override {
    // The socket belongs to the pod, where others may write to it: once connected, only the kernel can (netlink(7)).
    sockaddr_nl kernel = {};
    kernel.nl_family = AF_NETLINK;
    if (connect(fd_, reinterpret_cast<sockaddr*>(&kernel), sizeof kernel) != 0) return Fail("connect");
    // A long transaction is one datagram, longer than the default allows. A refusal shows when it is sent.
    const int room = static_cast<int>(request_.size()) * 2 + 4096;
    setsockopt(fd_, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room);
    ssize_t sent;
    do {
      sent = send(fd_, request_.data(), request_.size(), 0);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0) return Fail("send");
    Receive();
  }

  /// Only for want of memory.
  void OnError(const Napi::Error& error) override {
    close(fd_);
    deferred_.Reject(error.Value());
  }

  void OnOK() override {
    (new Close(Env(), fd_))->Queue();
    if (error_ != 0) {
      deferred_.Reject(ErrnoError(Env(), error_, step_).Value());
    } else {
      deferred_.Resolve(Napi::Buffer<uint8_t>::Copy(Env(), answer_.data(), answer_.size()));
    }
  }

 private:
  void Receive() {
    const auto deadline = std::chrono::steady_clock::now() + kMaxReceiveTime;
    std::vector<uint8_t> packet(kReceiveSize);
    while (std::chrono::steady_clock::now() < deadline) {
      sockaddr_nl sender = {};
      socklen_t sender_size = sizeof sender;
      const ssize_t length = recvfrom(fd_, packet.data(), packet.size(), MSG_DONTWAIT | MSG_TRUNC,
                                      reinterpret_cast<sockaddr*>(&sender), &sender_size);
      if (length < 0 && errno == EINTR) continue;
      if (length < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
      if (length < 0) return Fail("recv");
      // Connecting gives the socket its address a moment before it shuts others out.
      if (sender.nl_pid != 0) continue;
      const size_t size = static_cast<size_t>(length);
      if (size > packet.size() || size > kMaxAnswer - answer_.size()) return Fail("recv", EMSGSIZE);
      answer_.insert(answer_.end(), packet.data(), packet.data() + size);
    }
    Fail("recv", ETIMEDOUT);
  }

  void Fail(const char* step, int error = errno) {
    error_ = error;
    step_ = step;
  }

  Napi::Promise::Deferred deferred_;
  const int fd_;
  const std::vector<uint8_t> request_;
  std::vector<uint8_t> answer_;
  int error_ = 0;
  const char* step_ = "";
};

/// netlinkExchange(netns, protocol, request)
Napi::Value NetlinkExchange(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  SocketError error;
  const int fd = SocketIn(info[0].As<Napi::Number>().Int32Value(), AF_NETLINK, SOCK_RAW,
                          info[1].As<Napi::Number>().Int32Value(), &error);
  if (fd < 0) throw ErrnoError(env, error.error, error.step);
  const int on = 1;
  // Answers without a copy of the request, and with the kernel's reason in words; kernels before 4.12 have neither.
  setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on);
  setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on);
  auto* exchange = new Exchange(env, fd, info[2].As<Napi::Uint8Array>());
  const Napi::Promise promise = exchange->Promise();
  exchange->Queue();
  return promise;
}

}  // namespace

void InitNetlink(Napi::Env env, Napi::Object exports) {
  exports.Set("netlinkExchange", Napi::Function::New<NetlinkExchange>(env, "netlinkExchange"));
}

}  // namespace culvert
