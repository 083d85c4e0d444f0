// The face of revocation lists towards TypeScript (native/crl.ts).
#include "crl-binding.h"

#include <ctime>
#include <memory>
#include <string>
#include <vector>

#include "revocations.h"

namespace culvert {
namespace {

Napi::Value Describe(Napi::Env env, const CrlSet& lists) {
  Napi::Array result = Napi::Array::New(env);
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

// Reads lists beside the loops of all threads.
class CrlReader : public Napi::AsyncWorker {
 public:
  CrlReader(Napi::Env env, const Napi::Uint8Array& bytes)
      : Napi::AsyncWorker(env), deferred(Napi::Promise::Deferred::New(env)), bytes_(bytes.Data(), bytes.Data() + bytes.ByteLength()) {}

  const Napi::Promise::Deferred deferred;

 protected:
  void Execute() override {
    try {
      lists_ = SharedCrls(bytes_.data(), bytes_.size());
    } catch (const std::exception& failure) {
      SetError(failure.what());
    }
  }
  void OnOK() override { deferred.Resolve(Describe(Env(), *lists_)); }
  void OnError(const Napi::Error& error) override { deferred.Reject(error.Value()); }

 private:
  std::vector<uint8_t> bytes_;
  std::shared_ptr<const CrlSet> lists_;
};

// readCrls(bytes) → promise of what each list says of itself; rejected when the file cannot be used.
Napi::Value ReadCrls(const Napi::CallbackInfo& info) {
  auto* reader = new CrlReader(info.Env(), info[0].As<Napi::Uint8Array>());
  Napi::Promise promise = reader->deferred.Promise();
  reader->Queue();
  return promise;
}

// revokedAmong(bytes, [[chainPem, rootsPem], …]) → which of the chains the lists revoke.
Napi::Value RevokedAmong(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Napi::Uint8Array bytes = info[0].As<Napi::Uint8Array>();
  Napi::Array chains = info[1].As<Napi::Array>();
  Revocations revocations;
  try {
    revocations.Set(SharedCrls(bytes.Data(), bytes.ByteLength()));
  } catch (const std::exception& failure) {
    throw Napi::Error::New(env, failure.what());
  }
  Napi::Array result = Napi::Array::New(env);
  for (uint32_t i = 0; i < chains.Length(); i++) {
    Napi::Array chain = chains.Get(i).As<Napi::Array>();
    result.Set(i, Napi::Boolean::New(env, revocations.Revoked(chain.Get(0u).ToString(), chain.Get(1u).ToString())));
  }
  return result;
}

}  // namespace

void InitCrl(Napi::Env env, Napi::Object exports) {
  exports.Set("readCrls", Napi::Function::New(env, ReadCrls));
  exports.Set("revokedAmong", Napi::Function::New(env, RevokedAmong));
}

}  // namespace culvert
