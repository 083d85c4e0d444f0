// Entry point of the addon: every part adds its functions to the exports object. The addon is loaded once per thread;
// nothing mutable is shared between threads.
#include <napi.h>

#include "crl-binding.h"
#include "loop.h"
#include "netlink.h"
#include "netns.h"
#include "seqpacket.h"

namespace culvert {

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  InitNetns(env, exports);
  InitNetlink(env, exports);
  InitSeqpacket(env, exports);
  InitLoop(env, exports);
  InitCrl(env, exports);
  return exports;
}

}  // namespace culvert

static Napi::Object InitAddon(Napi::Env env, Napi::Object exports) { return culvert::Init(env, exports); }

NODE_API_MODULE(culvert, InitAddon)
