#ifdef SEALFS_IPSEC_MB
#include <errno.h>
#include <intel-ipsec-mb.h>
#include <openssl/crypto.h>
#include <stdlib.h>

#include "aes_gcm.h"

#define KEY_ALIGNMENT 64

static IMB_MGR *manager; /* a table of functions; what it can do besides is not used */

static int initialise(void) {
    if (manager != NULL)
        return 0;
    if ((imb_get_feature_flags() & IMB_FEATURE_AESNI) == 0)
        return -ENOTSUP;
    IMB_MGR *made = alloc_mb_mgr(0);
    if (made == NULL)
        return -ENOMEM;
    init_mb_mgr_auto(made, NULL);
    if (imb_get_errno(made) != 0) { /* its test of itself is part of this */
        free_mb_mgr(made);
        return -ENOTSUP;
    }
    manager = made;
    return 0;
}

bool aes_gcm_ipsec_mb_is_faster(void) {
    uint64_t flags = imb_get_feature_flags();

#if IMB_VERSION_NUM >= IMB_VERSION(1, 5, 0) /* on Xeons without AVX-512, of E cores */
    if ((flags & IMB_CPUFLAGS_AVX2_T2) == IMB_CPUFLAGS_AVX2_T2)
        return true;
#endif
    return (flags & IMB_CPUFLAGS_AVX512_T2) == IMB_CPUFLAGS_AVX512_T2;
}

static void *context_new(void) {
    return aligned_alloc(KEY_ALIGNMENT, (sizeof(struct gcm_key_data) + KEY_ALIGNMENT - 1) / KEY_ALIGNMENT * KEY_ALIGNMENT);
}

static void context_free(void *context) {
    if (context != NULL)
        OPENSSL_cleanse(context, sizeof(struct gcm_key_data));
    free(context);
}

static int set_key(void *context, const uint8_t key[AES_GCM_KEY_SIZE]) {
    IMB_AES256_GCM_PRE(manager, key, context);
    return 0;
}

static int decrypt(void *context, const uint8_t iv[AES_GCM_IV_SIZE], const uint8_t *aad, size_t aad_size,
                   const uint8_t *sealed, size_t size, const uint8_t tag[AES_GCM_TAG_SIZE], uint8_t *out) {
    struct gcm_context_data state;
    uint8_t found[AES_GCM_TAG_SIZE];

    IMB_AES256_GCM_DEC(manager, context, &state, out, sealed, size, iv, aad, aad_size, found, sizeof found);
    int error = CRYPTO_memcmp(found, tag, sizeof found) == 0 ? 0 : -EIO;
    OPENSSL_cleanse(&state, sizeof state);
    return error;
}

const struct aes_gcm aes_gcm_ipsec_mb = {"ipsec-mb", initialise, context_new, context_free, set_key, decrypt};
#endif
