#include "seqpacket.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace culvert {
namespace {

/// More descriptors than any message of ZDS carries, so that a wrong count is seen rather than truncated.
constexpr size_t kMaxDescriptors = 16;
/// Packets or connections taken in one turn of the loop before other handles get theirs.
constexpr int kBatch = 16;

[[noreturn]] void ThrowErrno(Napi::Env env, int error, const std::string& what) {
  Napi::Error thrown = Napi::Error::New(env, what + ": " + strerror(error));
  thrown.Set("code", Napi::String::New(env, uv_err_name(-error)));
  throw thrown;
}

sockaddr_un ToSockaddr(Napi::Env env, const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  // A path with a NUL would silently name another file.
  if (path.find('\0') != std::string::npos) ThrowErrno(env, EINVAL, "socket path contains a NUL byte");
  if (path.size() >= sizeof address.sun_path) {
    ThrowErrno(env, ENAMETOOLONG,
               "socket path " + path + " is longer than " + std::to_string(sizeof address.sun_path - 1) + " bytes");
  }
  memcpy(address.sun_path, path.data(), path.size());
  return address;
}

/// The descriptors of one packet. Whatever has not been taken when it goes out of scope is closed.
class ReceivedDescriptors {
 public:
  ReceivedDescriptors() = default;
  ReceivedDescriptors(const ReceivedDescriptors&) = delete;
  ReceivedDescriptors& operator=(const ReceivedDescriptors&) = delete;
  ~ReceivedDescriptors() { CloseAll(); }
  void CloseAll() {
    for (int fd : Take()) close(fd);
  }
  void Add(const cmsghdr* header) {
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; i++) {
      int fd;
      memcpy(&fd, CMSG_DATA(header) + i * sizeof fd, sizeof fd);
      fds_.push_back(fd);
    }
  }
  std::vector<int> Take() { return std::exchange(fds_, {}); }

 private:
  std::vector<int> fds_;
};

/// One socket, listening or connected, polled on the loop of the thread that made it.
///
/// The poll handle outlives the object: libuv frees it a turn after it was asked to close. So it lives in `Poll`, which
/// owns itself from the moment of closing.
class SeqPacket : public Napi::ObjectWrap<SeqPacket> {
 public:
  static Napi::Function Define(Napi::Env env) {
    return DefineClass(env, "SeqPacket",
                       {
                           StaticMethod<&SeqPacket::Connect>("connect"),
                           StaticMethod<&SeqPacket::Listen>("listen"),
                           InstanceMethod<&SeqPacket::Start>("start"),
                           InstanceMethod<&SeqPacket::Resume>("resume"),
                           InstanceMethod<&SeqPacket::Send>("send"),
                           InstanceMethod<&SeqPacket::TakeDescriptors>("takeDescriptors"),
                           InstanceMethod<&SeqPacket::CloseJs>("close"),
                       });
  }

  explicit SeqPacket(const Napi::CallbackInfo& info) : Napi::ObjectWrap<SeqPacket>(info) {
    // Only Connect, Listen and an accept make one, by handing over the descriptor; JavaScript cannot forge an External.
    if (!info[0].IsExternal()) throw Napi::TypeError::New(info.Env(), "use SeqPacket.connect or SeqPacket.listen");
    Setup* setup = info[0].As<Napi::External<Setup>>().Data();
    fd_ = setup->fd;
    listening_ = setup->listening;
    buffer_size_ = setup->buffer_size;
    path_ = setup->path;
    constructor_ = Napi::Persistent(setup->constructor);
    if (listening_) lstat(path_.c_str(), &path_status_);
    setup->fd = -1;
  }

  ~SeqPacket() override { Close(); }

 private:
  struct Setup {
    int fd;
    bool listening;
    size_t buffer_size;
    std::string path;
    Napi::Function constructor;
    ~Setup() {
      if (fd >= 0) close(fd);
    }
  };

  /// Lets TakeDescriptors find the packet that is being delivered.
  class Delivery {
   public:
    Delivery(SeqPacket* owner, ReceivedDescriptors* descriptors) : owner_(owner) { owner->delivering_ = descriptors; }
    Delivery(const Delivery&) = delete;
    Delivery& operator=(const Delivery&) = delete;
    ~Delivery() { owner_->delivering_ = nullptr; }

   private:
    SeqPacket* owner_;
  };

  struct Poll {
    uv_poll_t handle;
    SeqPacket* owner;
    napi_async_cleanup_hook_handle cleanup;
    int fd;
  };

  static Napi::Object Make(Napi::Env env, Setup* setup) {
    return setup->constructor.New({Napi::External<Setup>::New(env, setup)});
  }

  static size_t BufferSize(const Napi::Value& value) {
    const int64_t size = value.As<Napi::Number>().Int64Value();
    if (size < 1 || size > (1 << 20)) throw Napi::RangeError::New(value.Env(), "bufferSize must be 1 to 1048576");
    return static_cast<size_t>(size);
  }

  /// connect(path, bufferSize)
  static Napi::Value Connect(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    Setup setup{-1, false, BufferSize(info[1]), info[0].As<Napi::String>(), info.This().As<Napi::Function>()};
    const sockaddr_un address = ToSockaddr(env, setup.path);
    setup.fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (setup.fd < 0) ThrowErrno(env, errno, "cannot make a socket");
    // A local connect finishes at once; EAGAIN means that the listener's backlog is full.
    if (connect(setup.fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      ThrowErrno(env, errno, "cannot connect to " + setup.path);
    }
    return Make(env, &setup);
  }

  /// listen(path, mode, backlog, bufferSize): a stale socket file of that name is replaced, any other file is not.
  static Napi::Value Listen(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    Setup setup{-1, true, BufferSize(info[3]), info[0].As<Napi::String>(), info.This().As<Napi::Function>()};
    const mode_t mode = info[1].As<Napi::Number>().Uint32Value();
    const sockaddr_un address = ToSockaddr(env, setup.path);
    setup.fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (setup.fd < 0) ThrowErrno(env, errno, "cannot make a socket");
    // Linux makes the file with the mode of the socket: it is never, not even briefly, wider than asked for.
    fchmod(setup.fd, mode);
    struct stat status;
    if (lstat(setup.path.c_str(), &status) == 0 && S_ISSOCK(status.st_mode)) unlink(setup.path.c_str());
    if (bind(setup.fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      ThrowErrno(env, errno, "cannot listen on " + setup.path);
    }
    // The umask may have narrowed it.
    chmod(setup.path.c_str(), mode);
    if (listen(setup.fd, info[2].As<Napi::Number>().Int32Value()) != 0) {
      ThrowErrno(env, errno, "cannot listen on " + setup.path);
    }
    return Make(env, &setup);
  }

  /// start(onPacket | onConnection, onEnd): events begin.
  void Start(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    if (fd_ < 0) ThrowErrno(env, EBADF, "the socket is closed");
    if (poll_ != nullptr) throw Napi::Error::New(env, "already started");
    on_item_ = Napi::Persistent(info[0].As<Napi::Function>());
    on_end_ = Napi::Persistent(info[1].As<Napi::Function>());
    uv_loop_t* loop = nullptr;
    napi_get_uv_event_loop(env, &loop);
    auto poll = std::make_unique<Poll>();
    poll->owner = this;
    poll->fd = fd_;
    const int status = uv_poll_init(loop, &poll->handle, fd_);
    if (status != 0) ThrowErrno(env, -status, "cannot poll the socket");
    poll_ = poll.release();
    poll_->handle.data = poll_;
    napi_add_async_cleanup_hook(env, OnEnvironmentEnd, poll_, &poll_->cleanup);
    uv_poll_start(&poll_->handle, UV_READABLE, OnReadable);
    // Events keep the object alive; Close lets go.
    Ref();
  }

  /// Listens again after an accept failed for want of descriptors or memory.
  void Resume(const Napi::CallbackInfo&) {
    if (poll_ != nullptr) uv_poll_start(&poll_->handle, UV_READABLE, OnReadable);
  }

  /// send(payload, descriptors): the whole packet goes out, or an error with the errno is thrown. The descriptors stay
  /// the caller's.
  void Send(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    if (fd_ < 0) ThrowErrno(env, EBADF, "cannot send: the socket is closed");
    auto payload = info[0].As<Napi::Uint8Array>();
    if (payload.ByteLength() == 0) ThrowErrno(env, EINVAL, "an empty packet would read as the end of the stream");
    auto descriptors = info[1].As<Napi::Array>();
    const uint32_t count = descriptors.Length();
    if (count > kMaxDescriptors) throw Napi::RangeError::New(env, "too many descriptors for one packet");
    iovec vector = {payload.Data(), payload.ByteLength()};
    msghdr message = {};
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxDescriptors)] = {};
    if (count > 0) {
      message.msg_control = control;
      message.msg_controllen = CMSG_SPACE(sizeof(int) * count);
      cmsghdr* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(sizeof(int) * count);
      for (uint32_t i = 0; i < count; i++) {
        const int fd = descriptors.Get(i).As<Napi::Number>().Int32Value();
        memcpy(CMSG_DATA(header) + i * sizeof fd, &fd, sizeof fd);
      }
    }
    ssize_t sent;
    do {
      sent = sendmsg(fd_, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0) ThrowErrno(env, errno, "cannot send a packet");
  }

  /// Hands the descriptors of the packet being delivered to the caller. Without this call they are closed when the
  /// packet's callback returns.
  Napi::Value TakeDescriptors(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    Napi::Array result = Napi::Array::New(env);
    if (delivering_ == nullptr) return result;
    uint32_t index = 0;
    for (int fd : delivering_->Take()) result.Set(index++, fd);
    return result;
  }

  void CloseJs(const Napi::CallbackInfo&) { Close(); }

  void Close() {
    if (poll_ != nullptr) {
      Poll* poll = poll_;
      poll_ = nullptr;
      poll->owner = nullptr;
      StopPolling(poll);
      Unref();
    } else if (fd_ >= 0) {
      close(fd_);
    }
    if (listening_ && fd_ >= 0) RemoveOwnPath();
    fd_ = -1;
  }

  /// Removes the socket file unless another process has put its own there.
  void RemoveOwnPath() {
    struct stat status;
    if (lstat(path_.c_str(), &status) == 0 && status.st_ino == path_status_.st_ino &&
        status.st_dev == path_status_.st_dev) {
      unlink(path_.c_str());
    }
  }

  static void StopPolling(Poll* poll) {
    uv_close(reinterpret_cast<uv_handle_t*>(&poll->handle), [](uv_handle_t* handle) {
      std::unique_ptr<Poll> closed(static_cast<Poll*>(handle->data));
      napi_remove_async_cleanup_hook(closed->cleanup);
    });
    // uv_close has taken it out of the poll set; the peer need not wait for the callback.
    close(poll->fd);
  }

  static void OnEnvironmentEnd(napi_async_cleanup_hook_handle, void* data) {
    auto* poll = static_cast<Poll*>(data);
    if (poll->owner != nullptr) poll->owner->Close();
  }

  static void OnReadable(uv_poll_t* handle, int status, int) {
    SeqPacket* self = static_cast<Poll*>(handle->data)->owner;
    if (self == nullptr) return;
    Napi::Env env = self->Env();
    Napi::HandleScope scope(env);
    // Keeps the object over the callbacks: each of them may close it.
    [[maybe_unused]] const Napi::Object alive = self->Value();
    try {
      Napi::AsyncContext context(env, "SeqPacket");
      for (int i = 0; i < kBatch && self->poll_ != nullptr; i++) {
        const bool more = status < 0 ? self->Report(-status, context)
                          : self->listening_ ? self->AcceptNext(context)
                                             : self->ReceiveNext(context);
        if (!more) break;
      }
    } catch (const Napi::Error& error) {
      // An exception of a callback is its author's bug and becomes an uncaught one. In a thread that is being
      // terminated every call fails, without an exception to report.
      const napi_value exception = error.Value();
      if (exception != nullptr) napi_fatal_exception(env, exception);
    }
  }

  static void Call(const Napi::FunctionReference& callback, std::initializer_list<napi_value> arguments,
                   const Napi::AsyncContext& context) {
    callback.MakeCallback(callback.Env().Global(), arguments, context);
  }

  bool AcceptNext(const Napi::AsyncContext& context) {
    const int fd = accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
      if (errno == EAGAIN) return false;
      if (errno == EINTR || errno == ECONNABORTED) return true;
      // Out of descriptors or memory: the connection stays in the backlog and would wake this loop for ever.
      const int error = errno;
      uv_poll_stop(&poll_->handle);
      return Report(error, context);
    }
    Napi::Env env = Env();
    Setup setup{fd, false, buffer_size_, std::string(), constructor_.Value()};
    Napi::Object connection = Make(env, &setup);
    Call(on_item_, {connection}, context);
    return true;
  }

  /// onPacket(payload, truncated): the descriptors of a truncated packet are closed already.
  bool ReceiveNext(const Napi::AsyncContext& context) {
    Napi::Env env = Env();
    Napi::HandleScope scope(env);
    std::vector<uint8_t> buffer(buffer_size_);
    iovec vector = {buffer.data(), buffer.size()};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxDescriptors)];
    msghdr message = {};
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const ssize_t length = recvmsg(fd_, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (length < 0) {
      if (errno == EAGAIN) return false;
      if (errno == EINTR) return true;
      return Report(errno, context);
    }
    ReceivedDescriptors descriptors;
    for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
      if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) descriptors.Add(header);
    }
    // A packet without payload cannot be told from the end of the stream, and ZDS has none.
    if (length == 0) return Report(0, context);
    const bool truncated = (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0;
    if (truncated) descriptors.CloseAll();
    const auto payload = Napi::Buffer<uint8_t>::Copy(env, buffer.data(), static_cast<size_t>(length));
    const Delivery delivery(this, &descriptors);
    Call(on_item_, {payload, Napi::Boolean::New(env, truncated)}, context);
    return true;
  }

  /// onEnd(code | null): null is an orderly end. A listener that cannot accept reports and pauses, a connection ends.
  bool Report(int error, const Napi::AsyncContext& context) {
    Napi::Env env = Env();
    const Napi::Value code = error == 0 ? env.Null() : Napi::Value(Napi::String::New(env, uv_err_name(-error)));
    if (!listening_) Close();
    Call(on_end_, {code}, context);
    return false;
  }

  int fd_ = -1;
  bool listening_ = false;
  size_t buffer_size_ = 0;
  std::string path_;
  struct stat path_status_ = {};
  Poll* poll_ = nullptr;
  ReceivedDescriptors* delivering_ = nullptr;
  Napi::FunctionReference constructor_;
  Napi::FunctionReference on_item_;
  Napi::FunctionReference on_end_;
};

}  // namespace

void InitSeqpacket(Napi::Env env, Napi::Object exports) { exports.Set("SeqPacket", SeqPacket::Define(env)); }

}  // namespace culvert
