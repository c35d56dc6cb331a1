/* AES-256-GCM, decryption only, by one of the libraries that were there when this was built: OpenSSL's libcrypto
 * always, Intel's ipsec-mb (which Debian has, and which runs on AMD's processors as well) if it was found.
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

/* Those that were built in; NULL at the end. */
extern const struct aes_gcm *const aes_gcm_all[];

/* Whether an initialised one opens what libcrypto sealed, and nothing else: what is built for one processor may run on
 * one that nobody has tried. */
bool aes_gcm_agrees(const struct aes_gcm *backend);

/* The fastest one on this processor, initialised; NULL without memory. A library whose answers are not libcrypto's
 * is not taken. */
const struct aes_gcm *aes_gcm_choose(void);

/* Whether ipsec-mb has code for this processor that OpenSSL 3.0 has not: for AVX-512 with VAES. Elsewhere the two are
 * equally fast, and OpenSSL it is. */
#ifdef SEALFS_IPSEC_MB
bool aes_gcm_ipsec_mb_is_faster(void);
#endif

#endif
