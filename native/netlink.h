// Netlink sockets in the network namespace of a pod.
#pragma once

#include <napi.h>

namespace culvert {

/// Adds the functions of native/netlink.ts to the addon.
void InitNetlink(Napi::Env env, Napi::Object exports);

}  // namespace culvert
