// SOCK_SEQPACKET sockets that carry descriptors: the transport of ZDS, both ends of it.
#pragma once

#include <napi.h>

namespace culvert {

/// Adds the class SeqPacket of native/seqpacket.ts to the addon.
void InitSeqpacket(Napi::Env env, Napi::Object exports);

}  // namespace culvert
