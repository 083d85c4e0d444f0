{
  "variables": { "sanitize%": "" },
  "targets": [
    {
      "target_name": "culvert",
      "sources": ["addon.cc", "netns.cc", "netns-binding.cc", "netlink.cc", "seqpacket.cc", "loop.cc", "loop-binding.cc", "crl-binding.cc", "channel.cc", "channel-read.cc", "channel-write.cc", "memory-channel.cc", "listener.cc", "out-queue.cc", "tls-context.cc", "tls-session.cc", "tls-verify.cc", "tls-records.cc", "revocations.cc"],
      "include_dirs": ["<!@(node -p \"require('node-addon-api').include\")"],
      "defines": ["NAPI_VERSION=9", "NODE_ADDON_API_CPP_EXCEPTIONS", "NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS", "OPENSSL_API_COMPAT=30000"],
      "cflags_cc!": ["-fno-exceptions", "-fno-rtti", "-std=gnu++20"],
      "cflags_cc": ["-std=c++17", "-fexceptions", "-O2", "-g", "-Wall", "-Wextra", "-Wno-unused-parameter", "-fvisibility=hidden", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2"],
      "ldflags": ["-Wl,-z,relro,-z,now"],
      "conditions": [
        ["sanitize=='address'", {
          "cflags_cc": ["-fsanitize=address", "-fno-omit-frame-pointer", "-U_FORTIFY_SOURCE", "-O1"],
          "ldflags": ["-fsanitize=address"]
        }]
      ]
    }
  ]
}
