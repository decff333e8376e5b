#include "fabric/tls.h"

#include "base/check.h"
#include "base/hash.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <string>

namespace wideep::fabric {
namespace {

constexpr std::string_view kIdentity = "wideep";
constexpr std::array<unsigned char, 2> kAes128GcmSha256{0x13, 0x01};

using Context = std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)>;
using Connection = std::unique_ptr<SSL, decltype(&SSL_free)>;

std::unexpected<Error> failed(std::string_view what) {
  const unsigned long code = ERR_get_error();
  const char* reason = code == 0 ? nullptr : ERR_reason_error_string(code);
  ERR_clear_error();
  return error(ErrorCode::kUnavailable, "{}: {}", what,
               reason == nullptr ? "connection closed" : reason);
}

const PresharedKey& key_of(SSL* connection) {
  return *static_cast<const PresharedKey*>(SSL_get_app_data(connection));
}

// A session as TLS 1.3 wants its pre-shared keys. The caller takes it over.
SSL_SESSION* session_for(SSL* connection) {
  const auto key = key_of(connection).bytes();
  SSL_SESSION* session = SSL_SESSION_new();
  const SSL_CIPHER* cipher = SSL_CIPHER_find(connection, kAes128GcmSha256.data());
  WD_CHECK(session != nullptr);
  WD_CHECK(SSL_SESSION_set1_master_key(session, reinterpret_cast<const unsigned char*>(key.data()),
                                       key.size()) == 1);
  WD_CHECK(SSL_SESSION_set_cipher(session, cipher) == 1);
  WD_CHECK(SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) == 1);
  return session;
}

int offer_key(SSL* connection,
              const EVP_MD*,
              const unsigned char** identity,
              size_t* identity_bytes,
              SSL_SESSION** session) {
  *identity = reinterpret_cast<const unsigned char*>(kIdentity.data());
  *identity_bytes = kIdentity.size();
  *session = session_for(connection);
  return 1;
}

int find_key(SSL* connection,
             const unsigned char* identity,
             size_t identity_bytes,
             SSL_SESSION** session) {
  const std::string_view asked(reinterpret_cast<const char*>(identity), identity_bytes);
  *session = asked == kIdentity ? session_for(connection) : nullptr;
  return 1;
}

// OpenSSL's own socket BIO writes in a way that a closed connection kills the process (SIGPIPE).
int bio_write(BIO* bio, const char* bytes, int length) {
  BIO_clear_retry_flags(bio);
  const ssize_t count = send(static_cast<int>(reinterpret_cast<intptr_t>(BIO_get_data(bio))), bytes,
                             static_cast<size_t>(length), MSG_NOSIGNAL);
  if (count < 0 && BIO_sock_should_retry(-1) != 0) BIO_set_retry_write(bio);
  return static_cast<int>(count);
}

int bio_read(BIO* bio, char* bytes, int length) {
  BIO_clear_retry_flags(bio);
  const ssize_t count = recv(static_cast<int>(reinterpret_cast<intptr_t>(BIO_get_data(bio))), bytes,
                             static_cast<size_t>(length), 0);
  if (count < 0 && BIO_sock_should_retry(-1) != 0) BIO_set_retry_read(bio);
  return static_cast<int>(count);
}

long bio_control(BIO*, int command, long, void*) {
  return command == BIO_CTRL_FLUSH ? 1 : 0;
}

// Borrows the socket.
BIO* bio_for(int socket) {
  static BIO_METHOD* const method = [] {
    BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "socket");
    WD_CHECK(made != nullptr);
    BIO_meth_set_write(made, &bio_write);
    BIO_meth_set_read(made, &bio_read);
    BIO_meth_set_ctrl(made, &bio_control);
    return made;
  }();
  BIO* bio = BIO_new(method);
  WD_CHECK(bio != nullptr);
  // NOLINTNEXTLINE(performance-no-int-to-ptr): the library has a pointer's room for us
  BIO_set_data(bio, reinterpret_cast<void*>(static_cast<intptr_t>(socket)));
  BIO_set_init(bio, 1);
  return bio;
}

Context context_for(TlsRole role) {
  Context context(SSL_CTX_new(TLS_method()), &SSL_CTX_free);
  WD_CHECK(context != nullptr);
  WD_CHECK(SSL_CTX_set_min_proto_version(context.get(), TLS1_3_VERSION) == 1);
  WD_CHECK(SSL_CTX_set_ciphersuites(context.get(), "TLS_AES_128_GCM_SHA256") == 1);
  SSL_CTX_set_mode(context.get(), SSL_MODE_ENABLE_PARTIAL_WRITE |
                                      SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                      SSL_MODE_RELEASE_BUFFERS);
  // No tickets: a server that only reads never writes after the handshake.
  SSL_CTX_set_num_tickets(context.get(), 0);
  if (role == TlsRole::kClient) {
    SSL_CTX_set_psk_use_session_callback(context.get(), &offer_key);
    // There are no certificates: the key is the proof, so the server must have used it (checked).
    SSL_CTX_set_verify(context.get(), SSL_VERIFY_NONE, nullptr);
  } else {
    SSL_CTX_set_psk_find_session_callback(context.get(), &find_key);
  }
  return context;
}

class TlsStream final : public Stream {
 public:
  TlsStream(UniqueFd socket, TlsRole role, const PresharedKey& key)
      : socket_(std::move(socket)),
        key_(key),
        context_(context_for(role)),
        connection_(SSL_new(context_.get()), &SSL_free) {
    WD_CHECK(connection_ != nullptr);
    SSL_set_app_data(connection_.get(), &key_);
    BIO* bio = bio_for(socket_.get());
    SSL_set_bio(connection_.get(), bio, bio);  // takes it over
    if (role == TlsRole::kClient) {
      SSL_set_connect_state(connection_.get());
    } else {
      SSL_set_accept_state(connection_.get());
    }
  }

  int fd() const override { return socket_.get(); }

  Status handshake(const WaitLimit& limit) {
    for (;;) {
      ERR_clear_error();
      const int outcome = SSL_do_handshake(connection_.get());
      if (outcome == 1) break;
      const int reason = SSL_get_error(connection_.get(), outcome);
      if (reason != SSL_ERROR_WANT_READ && reason != SSL_ERROR_WANT_WRITE)
        return failed("handshake (is it the same key?)");
      const short events = reason == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT;
      if (!limit.await(fd(), events)) return error(ErrorCode::kTimeout, "handshake: no answer");
    }
    if (SSL_session_reused(connection_.get()) != 1)
      return error(ErrorCode::kUnavailable, "handshake: the other end did not use the key");
    return {};
  }

  Result<size_t> read(std::span<std::byte> bytes) override {
    ERR_clear_error();
    size_t count = 0;
    if (SSL_read_ex(connection_.get(), bytes.data(), bytes.size(), &count) == 1) return count;
    return nothing("read");
  }

  // Header, type of the content, tag.
  int record_overhead() const override { return 5 + 1 + 16; }

  bool holds_part() const override { return SSL_has_pending(connection_.get()) == 1; }

  Result<size_t> write(std::span<const std::byte> bytes) override {
    ERR_clear_error();
    size_t count = 0;
    if (SSL_write_ex(connection_.get(), bytes.data(), bytes.size(), &count) == 1) return count;
    return nothing("write");
  }

 private:
  // Why a call moved nothing.
  Result<size_t> nothing(std::string_view what) const {
    const int reason = SSL_get_error(connection_.get(), 0);
    if (reason == SSL_ERROR_WANT_READ || reason == SSL_ERROR_WANT_WRITE) return 0;
    return failed(what);
  }

  UniqueFd socket_;
  const PresharedKey key_;
  Context context_;
  Connection connection_;
};

}  // namespace

Result<PresharedKey> PresharedKey::from_secret(std::string_view secret) {
  constexpr std::string_view kSpace = " \t\r\n";
  const size_t begin = std::min(secret.find_first_not_of(kSpace), secret.size());
  secret.remove_prefix(begin);
  secret = secret.substr(0, secret.find_last_not_of(kSpace) + 1);
  if (secret.size() < kSecretBytesMin)
    return invalid_argument("key of {} bytes, at least {} needed", secret.size(), kSecretBytesMin);
  PresharedKey key;
  key.bytes_ = sha256(std::as_bytes(std::span(secret)));
  return key;
}

PresharedKey PresharedKey::derive(std::string_view purpose) const {
  const std::unique_ptr<EVP_KDF, decltype(&EVP_KDF_free)> hkdf(
      EVP_KDF_fetch(nullptr, "HKDF", nullptr), &EVP_KDF_free);
  const std::unique_ptr<EVP_KDF_CTX, decltype(&EVP_KDF_CTX_free)> context(
      EVP_KDF_CTX_new(hkdf.get()), &EVP_KDF_CTX_free);
  char digest[] = "SHA256";
  std::string info(purpose);
  PresharedKey source = *this;
  const std::array<OSSL_PARAM, 4> parameters{
      OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, source.bytes_.data(),
                                        source.bytes_.size()),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info.data(), info.size()),
      OSSL_PARAM_construct_end()};
  PresharedKey derived;
  WD_CHECK(EVP_KDF_derive(context.get(), reinterpret_cast<unsigned char*>(derived.bytes_.data()),
                          derived.bytes_.size(), parameters.data()) == 1);
  return derived;
}

Result<std::unique_ptr<Stream>> tls_stream(UniqueFd socket,
                                           TlsRole role,
                                           const PresharedKey& key,
                                           const WaitLimit& limit) {
  auto stream = std::make_unique<TlsStream>(std::move(socket), role, key);
  WD_TRY(stream->handshake(limit));
  return stream;
}

Result<std::unique_ptr<Stream>> open_stream(UniqueFd socket,
                                            TlsRole role,
                                            const std::optional<PresharedKey>& key,
                                            const WaitLimit& limit) {
  if (!key) return plain_stream(std::move(socket));
  return tls_stream(std::move(socket), role, *key, limit);
}

}  // namespace wideep::fabric
