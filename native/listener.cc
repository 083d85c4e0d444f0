// Listening sockets of a thread: connections are accepted in batches and told with their addresses.
#include <cerrno>
#include <sys/epoll.h>
#include <unistd.h>

#include "loop.h"

namespace culvert {
namespace {

// So that a flood of connections does not keep the established ones waiting.
constexpr int kAcceptsPerTurn = 32;

napi_value IpText(napi_env env, const Endpoint& endpoint) {
  char text[kIpTextSize];
  size_t length = FormatIp(endpoint, text);
  napi_value value = nullptr;
  napi_create_string_latin1(env, text, length, &value);
  return value;
}

}  // namespace

int Loop::Listen(int fd, Destination destination) {
  uint32_t id = 0;
  while (id < listeners_.size() && listeners_[id].fd >= 0) id++;
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kListenerTag | id;
  if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) return -errno;
  if (id == listeners_.size()) listeners_.emplace_back();
  listeners_[id] = {fd, destination, 0};
  return static_cast<int>(id);
}

void Loop::ResumeListener(uint32_t id) {
  if (id >= listeners_.size() || listeners_[id].fd < 0) return;
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kListenerTag | id;
  epoll_ctl(epoll_, EPOLL_CTL_MOD, listeners_[id].fd, &event);
}

void Loop::CloseListener(uint32_t id) {
  if (id >= listeners_.size() || listeners_[id].fd < 0) return;
  close(listeners_[id].fd);
  listeners_[id].fd = -1;
}

void Loop::Accept(uint32_t id) {
  if (id >= listeners_.size()) return;
  // Usually one connection waits, and asking for a second one that is not there costs the kernel half an accept. The next
  // turn tells if there is one; then all that wait are taken.
  ListenerEntry& listener = listeners_[id];
  const int most = listener.last_turn + 1 == turn_ ? kAcceptsPerTurn : 1;
  listener.last_turn = turn_;
  for (int i = 0; i < most; i++) {
    if (id >= listeners_.size() || listeners_[id].fd < 0) return;
    AcceptedSocket accepted;
    int result = AcceptOne(listeners_[id].fd, listeners_[id].destination, &accepted);
    if (result == -EAGAIN) return;
    if (result == -ECONNABORTED || result == -EINTR) continue;
    Napi::HandleScope scope(env);
    napi_value arguments[7];
    napi_create_uint32(env, id, &arguments[0]);
    if (result < 0) {
      // Out of descriptors or memory: the listener rests until TypeScript resumes it.
      epoll_event event{};
      event.data.u64 = kListenerTag | id;
      epoll_ctl(epoll_, EPOLL_CTL_MOD, listeners_[id].fd, &event);
      napi_create_int32(env, result, &arguments[1]);
      Called(napi_call_function(env, resource_.Value(), on_accept_.Value(), 2, arguments, nullptr));
      return;
    }
    uint32_t channel = Attach(accepted.fd, false);
    if (channel == 0) {
      close(accepted.fd);
      continue;
    }
    napi_create_uint32(env, channel, &arguments[1]);
    arguments[2] = IpText(env, accepted.peer);
    napi_create_uint32(env, accepted.peer.port, &arguments[3]);
    arguments[4] = IpText(env, accepted.destination);
    napi_create_uint32(env, accepted.destination.port, &arguments[5]);
    napi_get_boolean(env, accepted.original, &arguments[6]);
    if (Called(napi_call_function(env, resource_.Value(), on_accept_.Value(), 7, arguments, nullptr))) continue;
    if (Channel* orphan = Find(channel)) Reset(orphan);
    return;
  }
}

}  // namespace culvert
