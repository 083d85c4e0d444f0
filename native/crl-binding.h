#pragma once

#include <napi.h>

namespace culvert {

void InitCrl(Napi::Env env, Napi::Object exports);

}  // namespace culvert
