#include "loop.h"

#include <arpa/inet.h>
#include <cerrno>
#include <malloc.h>
#include <cstring>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utility>

namespace culvert {
namespace {

constexpr uint64_t kUvTag = ~uint64_t{0};
constexpr int kEventsPerTurn = 256;
// Nanoseconds. One connection at a time, pods on one machine: 0.26 of the plain rate without, 0.41 with 50 µs, 0.43 with 200.
constexpr uint64_t kLookOut = 50'000;
constexpr int kSleepsAfterVainLookOut = 8;
// libuv gets its turn at least this often: what it would do at the end of every turn (unreferenced immediates) does not
// wake anybody.
constexpr int kTurnsBeforeUv = 64;

// A loop waits for its own channels only, so a second one of the thread would stand still.
thread_local Loop* loop_of_thread = nullptr;

// True when libuv has descriptors to watch that it has not told the kernel yet; it does so only in its own poll.
bool UvHasNewWatchers(const uv_loop_t* loop) {
  return loop->watcher_queue.next != &loop->watcher_queue;
}

// One entry into JavaScript for all events of a turn; microtasks run when it is left.
class TurnScope {
 public:
  TurnScope(napi_env env, napi_value resource, napi_async_context context) : env_(env) {
    napi_open_callback_scope(env, resource, context, &scope_);
  }
  ~TurnScope() {
    if (scope_ != nullptr) napi_close_callback_scope(env_, scope_);
  }
  TurnScope(const TurnScope&) = delete;
  TurnScope& operator=(const TurnScope&) = delete;

 private:
  napi_env env_;
  napi_callback_scope scope_ = nullptr;
};

}  // namespace

Loop::Loop(Napi::Env environment, Napi::Object callbacks) : env(environment), cipher_(new uint8_t[kSlab]) {
  if (loop_of_thread != nullptr) throw Napi::Error::New(env, "this thread has a loop already");
  napi_get_uv_event_loop(env, &uv_);
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  if (epoll_ < 0) throw Napi::Error::New(env, std::string("epoll_create1: ") + std::strerror(errno));
  loop_of_thread = this;
  Napi::ArrayBuffer memory = Napi::ArrayBuffer::New(env, kScratch + kHeadroom + kSlab);
  memory_ = static_cast<uint8_t*>(memory.Data());
  read_at_ = memory_ + kScratch + kHeadroom;
  memory_ref = Napi::Persistent(memory.As<Napi::Object>());
  on_data_ = Napi::Persistent(callbacks.Get("data").As<Napi::Function>());
  on_event_ = Napi::Persistent(callbacks.Get("event").As<Napi::Function>());
  on_accept_ = Napi::Persistent(callbacks.Get("accept").As<Napi::Function>());
  resource_ = Napi::Persistent(callbacks);
  napi_value name = Napi::String::New(env, "culvert:loop");
  napi_async_init(env, callbacks, name, &async_context_);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kUvTag;
  epoll_ctl(epoll_, EPOLL_CTL_ADD, uv_backend_fd(uv_), &event);
  uv_prepare_init(uv_, &prepare_);
  uv_idle_init(uv_, &idle_);
  uv_unref(reinterpret_cast<uv_handle_t*>(&idle_));
  prepare_.data = this;
  idle_.data = this;
  open_handles_ = 2;
  uv_prepare_start(&prepare_, OnPrepare);
}

Loop::~Loop() {
  // The environment is going down with us; its references are its own to free.
  memory_ref.SuppressDestruct();
  on_data_.SuppressDestruct();
  on_event_.SuppressDestruct();
  on_accept_.SuppressDestruct();
  resource_.SuppressDestruct();
}

void Loop::Stop(std::function<void()> done) {
  if (stopping_) {
    if (open_handles_ == 0) done();
    else stopped_ = std::move(done);
    return;
  }
  stopping_ = true;
  stopped_ = std::move(done);
  if (loop_of_thread == this) loop_of_thread = nullptr;
  for (Channel* channel : table_) {
    if (channel != nullptr && !channel->closed) Finish(channel);
  }
  for (uint32_t id = 0; id < listeners_.size(); id++) CloseListener(id);
  contexts.clear();
  close(epoll_);
  epoll_ = -1;
  auto closed = [](uv_handle_t* handle) {
    auto* loop = static_cast<Loop*>(handle->data);
    if (--loop->open_handles_ > 0) return;
    loop->FreeClosed();
    // The callback may delete the loop.
    std::function<void()> stopped = std::move(loop->stopped_);
    if (stopped) stopped();
  };
  uv_close(reinterpret_cast<uv_handle_t*>(&prepare_), closed);
  uv_close(reinterpret_cast<uv_handle_t*>(&idle_), closed);
}

void Loop::OnPrepare(uv_prepare_t* handle) { static_cast<Loop*>(handle->data)->RunTurns(); }

void Loop::RunTurns() {
  uv_idle_stop(&idle_);
  for (int turns = 0; turns < kTurnsBeforeUv && !stopping_; turns++) {
    if (!dirty_.empty() || !dead_.empty()) {
      Napi::HandleScope handles(env);
      TurnScope scope(env, resource_.Value(), async_context_);
      FlushDirty();
      FreeClosed();
    }
    if (stopping_) return;
    // libuv's clock stands still while we wait here.
    uv_update_time(uv_);
    int timeout = uv_backend_timeout(uv_);
    bool uv_first = timeout == 0 || UvHasNewWatchers(uv_);
    // What ran when the scope above was left (a promise) may have written.
    bool more = !ready_.empty() || !dirty_.empty() || !dead_.empty();
    bool uv_ready = TurnOnce(uv_first || more ? 0 : timeout);
    if (uv_first || uv_ready || stopping_) break;
  }
  // libuv only looks, it does not wait: waiting is done here.
  if (!stopping_) uv_idle_start(&idle_, OnIdle);
}

// Waits for events, at first without giving up the processor: an answer of a local peer takes less time than to go to
// sleep and to be woken on a virtual machine. Whoever else wants the processor gets it, and a thread whose look-out was in
// vain sleeps at once for the next waits, so that a quiet or slow connection costs next to nothing.
int Loop::Wait(epoll_event* events, int room, int timeout) {
  if (timeout == 0) return epoll_wait(epoll_, events, room, 0);
  if (sleeps_due_ > 0) {
    sleeps_due_--;
  } else {
    const uint64_t until = uv_hrtime() + kLookOut;
    do {
      int count = epoll_wait(epoll_, events, room, 0);
      if (count != 0) return count;
      sched_yield();
    } while (uv_hrtime() < until);
    sleeps_due_ = kSleepsAfterVainLookOut;
  }
  return epoll_wait(epoll_, events, room, timeout);
}

// Returns true when libuv should have its turn.
bool Loop::TurnOnce(int timeout) {
  epoll_event events[kEventsPerTurn];
  int count = Wait(events, kEventsPerTurn, timeout);
  if (count <= 0 && ready_.empty()) return count == 0 ? timeout != 0 : true;
  bool uv_ready = false;
  Napi::HandleScope handles(env);
  TurnScope scope(env, resource_.Value(), async_context_);
  // Channels with more to read come after those with news, once per turn each.
  reading_.swap(ready_);
  for (int i = 0; i < count && !stopping_; i++) {
    uint64_t tag = events[i].data.u64;
    if (tag == kUvTag) {
      uv_ready = true;
    } else if ((tag & kListenerTag) != 0) {
      Accept(static_cast<uint32_t>(tag));
    } else if (Channel* channel = Find(static_cast<uint32_t>(tag))) {
      Dispatch(channel, events[i].events);
    }
  }
  for (uint32_t id : reading_) {
    Channel* channel = Find(id);
    if (channel == nullptr || stopping_) continue;
    channel->ready = false;
    if (!channel->failed && channel->readable) Read(channel);
  }
  reading_.clear();
  if (!stopping_) {
    FlushDirty();
    FreeClosed();
  }
  return uv_ready;
}

void Loop::CallData(Channel* channel, size_t n) {
  Napi::HandleScope scope(env);
  napi_value arguments[3];
  napi_create_uint32(env, channel->id, &arguments[0]);
  napi_create_uint32(env, static_cast<uint32_t>(read_at_ - memory_), &arguments[1]);
  napi_create_uint32(env, static_cast<uint32_t>(n), &arguments[2]);
  in_data_call_ = true;
  napi_value result = nullptr;
  napi_status status = napi_call_function(env, resource_.Value(), on_data_.Value(), 3, arguments, &result);
  in_data_call_ = false;
  int32_t limit = 0;
  if (Called(status)) napi_get_value_int32(env, result, &limit);
  if (!channel->closed && !channel->closing && !channel->read_ended) channel->read_limit = limit > 0 ? static_cast<uint32_t>(limit) : 0;
  if (!sliced_.empty()) FlushSliced();
}

void Loop::CallEvent(Channel* channel, int kind, double argument) {
  Napi::HandleScope scope(env);
  napi_value arguments[3];
  napi_create_uint32(env, channel->id, &arguments[0]);
  napi_create_int32(env, kind, &arguments[1]);
  napi_create_double(env, argument, &arguments[2]);
  Called(napi_call_function(env, resource_.Value(), on_event_.Value(), 3, arguments, nullptr));
}

// An exception that TypeScript let out goes where Node's uncaught ones go; left alone it would make every later call
// fail. Without an exception a failed call means that the thread is being terminated.
bool Loop::Called(napi_status status) {
  if (status == napi_ok) return true;
  bool pending = false;
  napi_value error = nullptr;
  if (napi_is_exception_pending(env, &pending) == napi_ok && pending && napi_get_and_clear_last_exception(env, &error) == napi_ok) {
    napi_fatal_exception(env, error);
  }
  return false;
}

// ---------------------------------------------------------------------------------------------------------------------
// The face towards TypeScript (native/channel.ts). Calls on an id that is gone do nothing and return -1.

namespace {

struct Call {
  napi_env env;
  Loop* loop = nullptr;
  size_t count = 6;
  napi_value arguments[6];
  Call(napi_env environment, napi_callback_info info) : env(environment) {
    void* data = nullptr;
    napi_get_cb_info(env, info, &count, arguments, nullptr, &data);
    loop = static_cast<Loop*>(data);
  }
  uint32_t U32(size_t i) const {
    uint32_t value = 0;
    napi_get_value_uint32(env, arguments[i], &value);
    return value;
  }
  int32_t I32(size_t i) const {
    int32_t value = 0;
    napi_get_value_int32(env, arguments[i], &value);
    return value;
  }
  bool Bool(size_t i) const {
    bool value = false;
    napi_get_value_bool(env, arguments[i], &value);
    return value;
  }
  Channel* Target() const { return loop->stopping() ? nullptr : loop->Find(U32(0)); }
  napi_value Number(double value) const {
    napi_value result = nullptr;
    napi_create_double(env, value, &result);
    return result;
  }
  napi_value Int(int32_t value) const {
    napi_value result = nullptr;
    napi_create_int32(env, value, &result);
    return result;
  }
};

// While its thread is being terminated any call into JavaScript fails, which node-addon-api reports by throwing.
template <napi_callback Function>
napi_value Guarded(napi_env env, napi_callback_info info) {
  try {
    return Function(env, info);
  } catch (const std::exception& failure) {
    napi_throw_error(env, nullptr, failure.what());
    return nullptr;
  }
}

// A method whose only argument is a channel.
template <auto Method>
napi_value OnChannel(napi_env env, napi_callback_info info) {
  Call call(env, info);
  if (Channel* channel = call.Target()) (call.loop->*Method)(channel);
  return nullptr;
}

std::string Text(Napi::Value value) { return value.IsString() ? value.As<Napi::String>().Utf8Value() : std::string(); }

napi_value Attach(napi_env env, napi_callback_info info) {
  Call call(env, info);
  return call.Number(call.loop->stopping() ? 0 : call.loop->Attach(call.I32(0), call.Bool(1)));
}

napi_value AttachMemory(napi_env env, napi_callback_info info) {
  Call call(env, info);
  return call.Number(call.loop->stopping() ? 0 : call.loop->AttachMemory());
}

napi_value Deliver(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Channel* channel = call.Target();
  size_t offset = call.U32(1);
  size_t n = call.U32(2);
  if (channel != nullptr && call.loop->InMemory(offset, n)) call.loop->Deliver(channel, call.loop->memory() + offset, n);
  return nullptr;
}

// take(channel, offset, room) → bytes that lie in memory from there on.
napi_value Take(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Channel* channel = call.Target();
  size_t offset = call.U32(1);
  size_t room = call.U32(2);
  if (channel == nullptr || !call.loop->InMemory(offset, room)) return call.Int(0);
  return call.Number(static_cast<double>(call.loop->Take(channel, call.loop->memory() + offset, room)));
}

// connect(netns, ip, port, source | null) → channel, or a negated errno.
napi_value Connect(napi_env env, napi_callback_info info) {
  Call call(env, info);
  char text[kIpTextSize];
  size_t length = 0;
  Endpoint target;
  Endpoint source;
  if (napi_get_value_string_latin1(env, call.arguments[1], text, sizeof(text), &length) != napi_ok || !ParseIp(text, &target)) return call.Int(-EINVAL);
  target.port = static_cast<uint16_t>(call.U32(2));
  bool spoofed = napi_get_value_string_latin1(env, call.arguments[3], text, sizeof(text), &length) == napi_ok && ParseIp(text, &source);
  if (call.loop->stopping()) return call.Int(-ECANCELED);
  Connecting connecting;
  SocketError error;
  if (!ConnectTcp(call.I32(0), target, spoofed ? &source : nullptr, call.loop->stream_options, &connecting, &error)) return call.Int(-error.error);
  uint32_t id = call.loop->Attach(connecting.fd, true);
  if (id == 0) {
    close(connecting.fd);
    return call.Int(-ENOMEM);
  }
  return call.Number(id);
}

napi_value Write(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Channel* channel = call.Target();
  size_t offset = call.U32(1);
  size_t n = call.U32(2);
  if (channel == nullptr || !call.loop->InMemory(offset, n)) return call.Int(-1);
  return call.Number(static_cast<double>(call.loop->Write(channel, call.loop->memory() + offset, n)));
}

napi_value WriteFrame(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Channel* channel = call.Target();
  size_t offset = call.U32(3);
  size_t n = call.U32(4);
  if (channel == nullptr || offset < Loop::kFrameHeader || n >= (1u << 24) || !call.loop->InMemory(offset, n)) return call.Int(-1);
  return call.Number(static_cast<double>(call.loop->WriteFrame(channel, call.U32(1), static_cast<uint8_t>(call.U32(2)), offset, n)));
}

napi_value Flush(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Channel* channel = call.Target();
  return channel == nullptr ? call.Int(-1) : call.Number(static_cast<double>(call.loop->FlushNow(channel)));
}

napi_value Resume(napi_env env, napi_callback_info info) {
  Call call(env, info);
  if (Channel* channel = call.Target()) call.loop->Resume(channel, call.U32(1));
  return nullptr;
}

napi_value Close(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Channel* channel = call.Target();
  napi_value result = nullptr;
  napi_get_boolean(env, channel == nullptr || call.loop->Close(channel), &result);
  return result;
}

// startTls(channel, context, server, identities, trustDomain, logSecrets) → null, or what is wrong.
napi_value StartTls(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Channel* channel = call.Target();
  if (channel == nullptr) return Napi::String::New(env, "the connection is gone");
  auto context = call.loop->contexts.find(call.U32(1));
  if (context == call.loop->contexts.end()) return Napi::String::New(env, "the TLS context was freed");
  PeerExpectation expectation;
  Napi::Array identities(env, call.arguments[3]);
  for (uint32_t i = 0; i < identities.Length(); i++) expectation.identities.push_back(Text(identities.Get(i)));
  expectation.trust_domain = Text(Napi::Value(env, call.arguments[4]));
  expectation.log_secrets = call.Bool(5);
  std::string error;
  if (!call.loop->StartTls(channel, context->second, call.Bool(2), std::move(expectation), &error)) return Napi::String::New(env, error);
  return Napi::Env(env).Null();
}

napi_value ErrorText(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Channel* channel = call.Target();
  return Napi::String::New(env, channel == nullptr ? "" : channel->error_text);
}

napi_value Peer(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Channel* channel = call.Target();
  Napi::Env napi(env);
  if (channel == nullptr || !channel->tls || !channel->tls->established()) return napi.Null();
  const PeerInfo& peer = channel->tls->peer();
  Napi::Object result = Napi::Object::New(napi);
  result.Set("identity", peer.identity);
  result.Set("group", peer.group);
  result.Set("suite", peer.suite);
  return result;
}

napi_value TcpInfo(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Channel* channel = call.Target();
  Napi::Env napi(env);
  tcp_info tcp{};
  socklen_t length = sizeof(tcp);
  if (channel == nullptr || getsockopt(channel->fd, IPPROTO_TCP, TCP_INFO, &tcp, &length) != 0) return napi.Null();
  Napi::Object result = Napi::Object::New(napi);
  result.Set("state", static_cast<double>(tcp.tcpi_state));
  result.Set("rttMicros", static_cast<double>(tcp.tcpi_rtt));
  result.Set("rttVarianceMicros", static_cast<double>(tcp.tcpi_rttvar));
  result.Set("congestionWindow", static_cast<double>(tcp.tcpi_snd_cwnd));
  result.Set("unacknowledged", static_cast<double>(tcp.tcpi_unacked));
  result.Set("retransmits", static_cast<double>(tcp.tcpi_total_retrans));
  return result;
}

// localPort(channel) → the port of this end, 0 when it has none.
napi_value LocalPort(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Channel* channel = call.Target();
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  if (channel == nullptr || getsockname(channel->fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) return call.Int(0);
  // The port stands at the same place in both families.
  return call.Int(ntohs(reinterpret_cast<sockaddr_in*>(&address)->sin_port));
}

// detach(channel) → its descriptor, which is the caller's from now on; -1 when there is none.
napi_value Detach(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Channel* channel = call.Target();
  return call.Int(channel == nullptr ? -1 : call.loop->Detach(channel));
}

napi_value Listen(napi_env env, napi_callback_info info) {
  Call call(env, info);
  if (call.loop->stopping()) return call.Int(-ECANCELED);
  return call.Int(call.loop->Listen(call.I32(0), call.Bool(1) ? Destination::kOriginal : Destination::kLocal));
}

napi_value CloseListener(napi_env env, napi_callback_info info) {
  Call call(env, info);
  if (!call.loop->stopping()) call.loop->CloseListener(call.U32(0));
  return nullptr;
}

napi_value ResumeListener(napi_env env, napi_callback_info info) {
  Call call(env, info);
  if (!call.loop->stopping()) call.loop->ResumeListener(call.U32(0));
  return nullptr;
}

napi_value NewTlsContext(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Napi::Object options(env, call.arguments[0]);
  TlsMaterial material{Text(options.Get("chainPem")), Text(options.Get("keyPem")), Text(options.Get("rootsPem")), Text(options.Get("groups")),
                       Text(options.Get("keyLogPath")), options.Get("tls12").ToBoolean().Value()};
  try {
    auto context = std::make_shared<TlsContext>(material);
    OPENSSL_cleanse(material.key_pem.data(), material.key_pem.size());
    uint32_t id = call.loop->next_context++;
    call.loop->contexts[id] = std::move(context);
    return call.Number(id);
  } catch (const std::exception& failure) {
    OPENSSL_cleanse(material.key_pem.data(), material.key_pem.size());
    napi_throw_error(env, "TLS_CONTEXT_INVALID", failure.what());
    return nullptr;
  }
}

napi_value FreeTlsContext(napi_env env, napi_callback_info info) {
  Call call(env, info);
  call.loop->contexts.erase(call.U32(0));
  return nullptr;
}

// setRevocations(bytes): what ReadCrls reads; connections of revoked peers fail.
napi_value SetRevocations(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Napi::Uint8Array bytes(env, call.arguments[0]);
  try {
    call.loop->revocations.Set(ReadCrls(bytes.Data(), bytes.ByteLength()));
  } catch (const std::exception& failure) {
    napi_throw_error(env, "CRL_INVALID", failure.what());
    return nullptr;
  }
  if (!call.loop->stopping()) call.loop->CutRevoked();
  return nullptr;
}

napi_value SetStreamOptions(napi_env env, napi_callback_info info) {
  Call call(env, info);
  StreamOptions& options = call.loop->stream_options;
  options.mark = call.U32(0);
  options.keep_alive = {call.Bool(1), call.I32(2), call.I32(3), call.I32(4)};
  options.user_timeout_ms = call.U32(5);
  return nullptr;
}

napi_value Count(napi_env env, napi_callback_info info) {
  Call call(env, info);
  return call.Number(static_cast<double>(call.loop->channel_count()));
}

// trim(): gives memory that was freed back to the system.
napi_value Trim(napi_env, napi_callback_info) {
  malloc_trim(0);
  return nullptr;
}

napi_value Stop(napi_env env, napi_callback_info info) {
  Call call(env, info);
  call.loop->Stop([] {});
  return nullptr;
}

// readCrls(bytes) → what each list says of itself; throws when the file cannot be used.
Napi::Value ReadCrlsJs(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Napi::Uint8Array bytes = info[0].As<Napi::Uint8Array>();
  Napi::Array result = Napi::Array::New(env);
  std::vector<CrlPtr> lists;
  try {
    lists = ReadCrls(bytes.Data(), bytes.ByteLength());
  } catch (const std::exception& failure) {
    throw Napi::Error::New(env, failure.what());
  }
  for (uint32_t i = 0; i < lists.size(); i++) {
    X509_CRL* crl = lists[i].get();
    std::unique_ptr<BIO, decltype(&BIO_free_all)> name(BIO_new(BIO_s_mem()), BIO_free_all);
    X509_NAME_print_ex(name.get(), X509_CRL_get_issuer(crl), 0, XN_FLAG_RFC2253);
    char* text = nullptr;
    long length = BIO_get_mem_data(name.get(), &text);
    std::tm until{};
    const ASN1_TIME* next = X509_CRL_get0_nextUpdate(crl);
    STACK_OF(X509_REVOKED)* revoked = X509_CRL_get_REVOKED(crl);
    Napi::Object list = Napi::Object::New(env);
    list.Set("issuer", Napi::String::New(env, text, static_cast<size_t>(length)));
    list.Set("revoked", revoked == nullptr ? 0 : sk_X509_REVOKED_num(revoked));
    if (next != nullptr && ASN1_TIME_to_tm(next, &until) == 1) list.Set("nextUpdate", static_cast<double>(timegm(&until)) * 1000);
    else list.Set("nextUpdate", env.Null());
    result.Set(i, list);
  }
  return result;
}

struct Cleanup {
  Loop* loop;
  napi_async_cleanup_hook_handle handle;
};

void OnEnvironmentExit(napi_async_cleanup_hook_handle handle, void* data) {
  auto* cleanup = static_cast<Cleanup*>(data);
  cleanup->loop->Stop([cleanup, handle] {
    delete cleanup->loop;
    delete cleanup;
    napi_remove_async_cleanup_hook(handle);
  });
}

Napi::Value CreateLoop(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto* loop = new Loop(env, info[0].As<Napi::Object>());
  auto* cleanup = new Cleanup{loop, nullptr};
  napi_add_async_cleanup_hook(env, OnEnvironmentExit, cleanup, &cleanup->handle);
  Napi::Object result = Napi::Object::New(env);
  const std::pair<const char*, napi_callback> functions[] = {
      {"attach", Attach}, {"attachMemory", AttachMemory}, {"deliver", Deliver}, {"deliverEnd", OnChannel<&Loop::DeliverEnd>}, {"deliverReset", OnChannel<&Loop::DeliverReset>}, {"take", Take},
      {"connect", Connect}, {"write", Write}, {"writeFrame", WriteFrame}, {"flush", Flush}, {"resume", Resume},
      {"shutdown", OnChannel<&Loop::Shutdown>}, {"close", Close}, {"reset", OnChannel<&Loop::Reset>}, {"startTls", Guarded<StartTls>}, {"errorText", Guarded<ErrorText>}, {"peer", Guarded<Peer>},
      {"tcpInfo", Guarded<TcpInfo>}, {"localPort", LocalPort}, {"detach", Detach}, {"listen", Listen}, {"closeListener", CloseListener}, {"resumeListener", ResumeListener},
      {"newTlsContext", Guarded<NewTlsContext>}, {"freeTlsContext", FreeTlsContext}, {"setRevocations", Guarded<SetRevocations>}, {"setStreamOptions", SetStreamOptions}, {"count", Count}, {"trim", Trim}, {"stop", Stop},
  };
  for (const auto& [name, callback] : functions) {
    napi_value function = nullptr;
    napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, loop, &function);
    result.Set(name, Napi::Value(env, function));
  }
  result.Set("memory", loop->memory_ref.Value());
  result.Set("scratchSize", static_cast<double>(Loop::kScratch));
  result.Set("slabSize", static_cast<double>(Loop::kSlab));
  return result;
}

}  // namespace

void InitLoop(Napi::Env env, Napi::Object exports) {
  exports.Set("createLoop", Napi::Function::New(env, CreateLoop));
  exports.Set("readCrls", Napi::Function::New(env, ReadCrlsJs));
}

}  // namespace culvert
