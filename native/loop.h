// The data plane of one thread: channels (connections), listeners, and the slab they read into.
//
// Sockets are watched by an epoll instance of the loop itself, edge triggered and registered once per connection, and
// waited for inside libuv's prepare phase together with libuv's own descriptor. A turn of traffic is so one epoll_wait
// and nothing else; libuv gets its turn as soon as it has a timer, a message or a handle of its own to look at.
#pragma once

#include <napi.h>
#include <sys/epoll.h>
#include <uv.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "netns.h"
#include "out-queue.h"
#include "tls-session.h"

namespace culvert {

class Loop;

// Marks a listener in the data of an epoll event; the rest is its id.
constexpr uint64_t kListenerTag = uint64_t{1} << 32;

// Kinds of events told to TypeScript; the same numbers stand in channel.ts.
enum EventKind : int {
  kEventConnected = 0,
  kEventHandshake = 1,
  kEventEnd = 2,
  kEventDrained = 3,
  kEventError = 4,
  kEventClosed = 5,
  // Told to the carrier of a memory channel.
  kEventOutput = 6,
  kEventOutputEnd = 7,
  kEventGone = 8,
};

// Argument of kEventError when it is no errno.
constexpr int kTlsError = 10000;
// The certificate of the peer is revoked; also TLS.
constexpr int kRevokedError = 10001;

// A part of the slab that waits for the end of the callback it was written in.
struct Slice {
  const uint8_t* bytes;
  uint32_t length;
  int32_t next;
};

// Stands for the socket of a memory channel: TypeScript, its carrier, brings what is read and takes what is sent.
struct MemoryEnd {
  // As recv(2).
  ssize_t Receive(ChunkPool* pool, uint8_t* to, size_t room);
  OutQueue in;             // delivered and not read yet
  bool in_ended = false;   // nothing is delivered any more
  bool in_reset = false;   // what carries the channel has broken after what `in` holds
  bool taken = false;      // the carrier took something since it was last looked at
  bool tell_shut = false;  // the carrier has everything and does not know yet that it was the last
  bool reset = false;
};

struct Channel {
  Loop* loop = nullptr;
  uint32_t id = 0;
  int fd = -1;
  uint32_t read_limit = 0;  // bytes the next read may take; 0 = paused
  int32_t first_slice = -1;
  int32_t last_slice = -1;
  bool connecting = false;
  bool readable = false;      // there may be bytes (or an end) for us
  bool read_to_end = false;   // a short read no longer means that nothing is left: an end or urgent data may follow
  bool broken = false;        // the socket has an error; it comes after the bytes that are read before it
  bool read_ended = false;
  bool writable = true;
  bool failed = false;        // only close is left
  bool tell_failed = false;   // and TypeScript does not know yet
  bool shut_when_flushed = false;
  bool shut = false;
  bool closing = false;       // closed by TypeScript; waits for its queue
  bool closed = false;        // descriptor gone; memory freed between turns
  bool tell_closed = false;
  bool dirty = false;         // in the list of channels to flush
  bool ready = false;         // in the list of channels to read again
  bool tell_drained = false;
  bool records_wait = false;  // TLS: partial_record begins with whole records, left there by a pause
  int error = 0;
  OutQueue out;
  OutQueue unread;            // given back by TypeScript: the next read begins with it
  Chunk* plain = nullptr;     // TLS: what was written this turn and not sealed yet
  std::unique_ptr<TlsSession> tls;
  std::unique_ptr<MemoryEnd> memory;  // null: there is a socket
  std::unique_ptr<std::vector<uint8_t>> partial_record;
  std::string error_text;
};

struct ListenerEntry {
  int fd = -1;
  Destination destination = Destination::kOriginal;
  uint64_t last_turn = 0;  // that it accepted in
};

class Loop {
 public:
  // Slab layout: scratch for frames that TypeScript builds, then room for a frame header in front of what is read.
  static constexpr size_t kScratch = 64 * 1024;
  static constexpr size_t kHeadroom = 64;
  static constexpr size_t kSlab = 128 * 1024;
  static constexpr size_t kFrameHeader = 9;  // RFC 9113 §4.1

  Loop(Napi::Env env, Napi::Object callbacks);
  ~Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  uint32_t Attach(int fd, bool connecting);
  // A channel without a socket; 0 when there are too many channels.
  uint32_t AttachMemory();
  void Deliver(Channel* channel, const uint8_t* bytes, size_t n);
  void DeliverEnd(Channel* channel);
  void DeliverReset(Channel* channel);
  // Gives the carrier up to `room` bytes of what is to be sent; returns how many.
  size_t Take(Channel* channel, uint8_t* to, size_t room);
  Channel* Find(uint32_t id);
  int64_t Write(Channel* channel, const uint8_t* bytes, size_t n);
  int64_t WriteFrame(Channel* channel, uint32_t stream, uint8_t flags, size_t offset, size_t n);
  size_t FlushNow(Channel* channel);
  void Resume(Channel* channel, uint32_t limit);
  // Takes back the last `n` bytes of what was read from a plain channel.
  void Unread(Channel* channel, const uint8_t* bytes, size_t n);
  void Shutdown(Channel* channel);
  bool Close(Channel* channel);
  void Reset(Channel* channel);
  int Detach(Channel* channel);
  bool StartTls(Channel* channel, std::shared_ptr<TlsContext> context, bool server, PeerExpectation expectation, std::string* error);
  // Returns the listener's id or a negated errno.
  int Listen(int fd, Destination destination);
  void CloseListener(uint32_t id);
  void ResumeListener(uint32_t id);
  // Closes every descriptor; `done` is called when libuv has let go of the handles. Channels stay in memory until then,
  // because TypeScript may call this from inside any of their events.
  void Stop(std::function<void()> done);
  bool stopping() const { return stopping_; }
  uint8_t* memory() { return memory_; }
  bool InMemory(size_t offset, size_t n) const { return offset <= kScratch + kHeadroom + kSlab && n <= kScratch + kHeadroom + kSlab - offset; }
  size_t channel_count() const { return live_; }
  void ReleaseBuffers() { pool_.Release(); }

  // Compares the peers of all connections with the lists that are in force.
  void CutRevoked();

  Napi::Env env;
  StreamOptions stream_options;
  Revocations revocations;
  std::map<uint32_t, std::shared_ptr<TlsContext>> contexts;
  uint32_t next_context = 1;
  Napi::ObjectReference memory_ref;

 private:
  static void OnPrepare(uv_prepare_t* handle);
  static void OnIdle(uv_idle_t*) {}
  void RunTurns();
  bool TurnOnce(int timeout);
  int Wait(epoll_event* events, int room, int timeout);
  void Dispatch(Channel* channel, uint32_t events);
  Channel* NewChannel(int fd);
  ssize_t Receive(Channel* channel, uint8_t* to, size_t room);
  void TellCarrier(Channel* channel);
  void Read(Channel* channel);
  void Discard(Channel* channel);
  static bool Lingers(const Channel* channel);
  void ReadPlain(Channel* channel);
  void ReadTunnel(Channel* channel);
  void ReadTls(Channel* channel);
  void OpenRecords(Channel* channel, size_t total);
  void HoldBack(Channel* channel, size_t from, size_t to);
  void CheckError(Channel* channel);
  void ConnectDone(Channel* channel, bool broken);
  void Writable(Channel* channel);
  void ReadEnd(Channel* channel);
  void Fail(Channel* channel, int code, std::string text);
  void Flush(Channel* channel);
  int64_t Queue(Channel* channel, const uint8_t* bytes, size_t n, bool stays);
  bool SendSlices(Channel* channel);
  void FlushSliced();
  void FlushDirty();
  void MarkDirty(Channel* channel);
  void MarkReady(Channel* channel);
  bool SealPlain(Channel* channel);
  void Finish(Channel* channel);
  void FreeClosed();
  void Accept(uint32_t id);
  void CallData(Channel* channel, size_t n);
  void CallEvent(Channel* channel, int kind, double argument);
  bool Called(napi_status status);

  uv_prepare_t prepare_{};
  uv_idle_t idle_{};
  int open_handles_ = 0;
  std::function<void()> stopped_;
  uv_loop_t* uv_ = nullptr;
  int epoll_ = -1;
  int sleeps_due_ = 0;  // waits that sleep at once
  int sleeps_after_loss_ = 0;  // as many when the processor is lost next, if not kFewestSleeps
  uint64_t turn_ = 1;
  uint8_t* memory_ = nullptr;
  uint8_t* read_at_ = nullptr;
  std::unique_ptr<uint8_t[]> cipher_;
  ChunkPool pool_;
  std::vector<Channel*> table_;
  std::vector<uint32_t> generations_;
  std::deque<uint32_t> free_;
  std::vector<uint32_t> dirty_;
  std::vector<uint32_t> ready_;
  std::vector<uint32_t> reading_;
  std::vector<uint32_t> sliced_;
  std::vector<Slice> slices_;
  std::vector<Channel*> dead_;
  std::vector<ListenerEntry> listeners_;
  size_t live_ = 0;
  bool in_data_call_ = false;
  bool stopping_ = false;
  Napi::FunctionReference on_data_;
  Napi::FunctionReference on_event_;
  Napi::FunctionReference on_accept_;
  Napi::ObjectReference resource_;
  napi_async_context async_context_ = nullptr;
};

// Adds the class Loop of native/channel.ts to the addon.
void InitLoop(Napi::Env env, Napi::Object exports);

}  // namespace culvert
