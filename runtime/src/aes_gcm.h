/* AES-256-GCM, decryption only, by one of the libraries that were there when this was built: OpenSSL's libcrypto
 * always, Intel's ipsec-mb (which runs on AMD's processors as well) and GnuPG's libgcrypt if they were found.
 *
 * Functions return 0 or a negative errno: -EIO for what does not authenticate, -ENOMEM, -ENOTSUP.
 *
 * Threading: `initialise` once before all else; a context belongs to one thread at a time.
 */
#ifndef SEALFS_AES_GCM_H
#define SEALFS_AES_GCM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AES_GCM_KEY_SIZE 32
#define AES_GCM_IV_SIZE 12
#define AES_GCM_TAG_SIZE 16

struct aes_gcm {
    const char *name;
    int (*initialise)(void); /* idempotent. -ENOTSUP: not on this processor */
    void *(*context_new)(void);
    void (*context_free)(void *context); /* wipes the key */
    int (*set_key)(void *context, const uint8_t key[AES_GCM_KEY_SIZE]);
    /* What it writes before it finds out that nothing was authentic is the caller's to wipe. */
    int (*decrypt)(void *context, const uint8_t iv[AES_GCM_IV_SIZE], const uint8_t *aad, size_t aad_size,
                   const uint8_t *sealed, size_t size, const uint8_t tag[AES_GCM_TAG_SIZE], uint8_t *out);
};

extern const struct aes_gcm aes_gcm_openssl;
#ifdef SEALFS_IPSEC_MB
extern const struct aes_gcm aes_gcm_ipsec_mb;
#endif
#ifdef SEALFS_LIBGCRYPT
extern const struct aes_gcm aes_gcm_libgcrypt;
#endif

/* Those that were built in; NULL at the end. */
extern const struct aes_gcm *const aes_gcm_all[];

/* Whether an initialised one opens what libcrypto sealed, and nothing else: what is built for one processor may run on
 * one that nobody has tried. */
bool aes_gcm_agrees(const struct aes_gcm *backend);

/* The fastest one on this processor, initialised; NULL without memory. A library whose answers are not libcrypto's
 * is not taken. */
const struct aes_gcm *aes_gcm_choose(void);

/* Whether a library has code for this processor that OpenSSL has not. ipsec-mb: for AVX-512 with VAES, from its
 * version 1.5 on also for AVX2 with VAES and GFNI. libgcrypt: for AVX2 with VAES (AMD's Zen 3). Elsewhere OpenSSL is as
 * fast (docs/performance.md). */
#ifdef SEALFS_IPSEC_MB
bool aes_gcm_ipsec_mb_is_faster(void);
#endif
#ifdef SEALFS_LIBGCRYPT
bool aes_gcm_libgcrypt_is_faster(void);
#endif

#endif
