// The face towards TypeScript (native/channel.ts). Calls on an id that is gone do nothing and return -1.
#include <arpa/inet.h>
#include <malloc.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utility>

#include "loop.h"

namespace culvert {
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

napi_value Unread(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Channel* channel = call.Target();
  size_t offset = call.U32(1);
  size_t n = call.U32(2);
  if (channel != nullptr && call.loop->InMemory(offset, n)) call.loop->Unread(channel, call.loop->memory() + offset, n);
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
  TlsMaterial material;
  material.chain_pem = Text(options.Get("chainPem"));
  material.roots_pem = Text(options.Get("rootsPem"));
  material.groups = Text(options.Get("groups"));
  material.key_log_path = Text(options.Get("keyLogPath"));
  material.tls12 = options.Get("tls12").ToBoolean().Value();
  Napi::Uint8Array key = options.Get("key").As<Napi::Uint8Array>();
  material.key_der = key.Data();
  material.key_length = key.ByteLength();
  try {
    auto context = std::make_shared<TlsContext>(material);
    uint32_t id = call.loop->next_context++;
    call.loop->contexts[id] = std::move(context);
    return call.Number(id);
  } catch (const std::exception& failure) {
    napi_throw_error(env, "TLS_CONTEXT_INVALID", failure.what());
    return nullptr;
  }
}

napi_value FreeTlsContext(napi_env env, napi_callback_info info) {
  Call call(env, info);
  call.loop->contexts.erase(call.U32(0));
  return nullptr;
}

// setRevocations(bytes): what SharedCrls reads; connections of revoked peers fail.
napi_value SetRevocations(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Napi::Uint8Array bytes(env, call.arguments[0]);
  try {
    call.loop->revocations.Set(SharedCrls(bytes.Data(), bytes.ByteLength()));
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

napi_value ReleaseBuffers(napi_env env, napi_callback_info info) {
  Call call(env, info);
  call.loop->ReleaseBuffers();
  return nullptr;
}

napi_value Stop(napi_env env, napi_callback_info info) {
  Call call(env, info);
  call.loop->Stop([] {});
  return nullptr;
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
      {"connect", Connect}, {"write", Write}, {"writeFrame", WriteFrame}, {"flush", Flush}, {"resume", Resume}, {"unread", Unread},
      {"shutdown", OnChannel<&Loop::Shutdown>}, {"close", Close}, {"reset", OnChannel<&Loop::Reset>}, {"startTls", Guarded<StartTls>}, {"errorText", Guarded<ErrorText>}, {"peer", Guarded<Peer>},
      {"tcpInfo", Guarded<TcpInfo>}, {"localPort", LocalPort}, {"detach", Detach}, {"listen", Listen}, {"closeListener", CloseListener}, {"resumeListener", ResumeListener},
      {"newTlsContext", Guarded<NewTlsContext>}, {"freeTlsContext", FreeTlsContext}, {"setRevocations", Guarded<SetRevocations>}, {"setStreamOptions", SetStreamOptions}, {"count", Count}, {"trim", Trim}, {"releaseBuffers", ReleaseBuffers}, {"stop", Stop},
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
}

}  // namespace culvert
