#include "loop.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <sched.h>
#include <sys/epoll.h>
#include <unistd.h>
#include <utility>

namespace culvert {
namespace {

constexpr uint64_t kUvTag = ~uint64_t{0};
constexpr int kEventsPerTurn = 256;
// Nanoseconds. One connection at a time, pods on one machine: 0.26 of the plain rate without, 0.41 with 50 µs, 0.43 with 200.
constexpr uint64_t kLookOut = 50'000;
constexpr int kSleepsAfterVainLookOut = 8;
// In ns. After a look-out in which somebody else had the processor for so long there are more of them, twice as many each time.
constexpr uint64_t kLostProcessor = 500'000;
constexpr int kFewestSleeps = 64;
constexpr int kMostSleeps = 4096;
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
// sleep and to be woken on a virtual machine. A thread whose look-out was in vain sleeps at once for the next waits, so that
// a quiet or slow connection costs next to nothing. Whoever else wants the processor gets it, so that on a busy one there is
// hardly any look-out (measured beside other load on every processor, one connection at a time: 880 instead of 556 new
// connections a second).
int Loop::Wait(epoll_event* events, int room, int timeout) {
  if (timeout == 0) return epoll_wait(epoll_, events, room, 0);
  if (sleeps_due_ > 0) {
    sleeps_due_--;
  } else {
    const uint64_t until = uv_hrtime() + kLookOut;
    uint64_t now;
    do {
      int count = epoll_wait(epoll_, events, room, 0);
      if (count != 0) return count;
      sched_yield();
      now = uv_hrtime();
    } while (now < until);
    if (now >= until + kLostProcessor) {
      sleeps_due_ = std::max(sleeps_after_loss_, kFewestSleeps);
      sleeps_after_loss_ = std::min(2 * sleeps_due_, kMostSleeps);
    } else {
      sleeps_due_ = kSleepsAfterVainLookOut;
      sleeps_after_loss_ /= 2;
    }
  }
  return epoll_wait(epoll_, events, room, timeout);
}

// Returns true when libuv should have its turn.
bool Loop::TurnOnce(int timeout) {
  epoll_event events[kEventsPerTurn];
  int count = Wait(events, kEventsPerTurn, timeout);
  if (count <= 0 && ready_.empty()) return count == 0 ? timeout != 0 : true;
  turn_++;
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

}  // namespace culvert
