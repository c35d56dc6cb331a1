#include "aes_gcm.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLE_SIZE 5003 /* all lengths of unrolled loops, and a rest */

const struct aes_gcm *const aes_gcm_all[] = {
    &aes_gcm_openssl,
#ifdef SEALFS_IPSEC_MB
    &aes_gcm_ipsec_mb,
#endif
#ifdef SEALFS_LIBGCRYPT
    &aes_gcm_libgcrypt,
#endif
    NULL,
};

bool aes_gcm_agrees(const struct aes_gcm *backend) {
    static const uint8_t key[AES_GCM_KEY_SIZE] = {7}, iv[AES_GCM_IV_SIZE] = {9}, aad[9] = {11};
    uint8_t *plain = malloc(SAMPLE_SIZE), *sealed = malloc(SAMPLE_SIZE), *out = calloc(1, SAMPLE_SIZE);
    uint8_t tag[AES_GCM_TAG_SIZE];
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    void *tried = backend->context_new();
    int count;
    bool good = false;

    if (plain == NULL || sealed == NULL || out == NULL || context == NULL || tried == NULL)
        goto done;
    for (int i = 0; i < SAMPLE_SIZE; i++)
        plain[i] = (uint8_t)(i * 31 >> 2);
    good = EVP_EncryptInit_ex2(context, EVP_aes_256_gcm(), key, iv, NULL) == 1 &&
           EVP_EncryptUpdate(context, NULL, &count, aad, sizeof aad) == 1 &&
           EVP_EncryptUpdate(context, sealed, &count, plain, SAMPLE_SIZE) == 1 &&
           EVP_EncryptFinal_ex(context, sealed + SAMPLE_SIZE, &count) == 1 &&
           EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, sizeof tag, tag) == 1 &&
           backend->set_key(tried, key) == 0 &&
           backend->decrypt(tried, iv, aad, sizeof aad, sealed, SAMPLE_SIZE, tag, out) == 0 &&
           memcmp(out, plain, SAMPLE_SIZE) == 0;
    sealed[SAMPLE_SIZE / 2] ^= 1;
    good = good && backend->decrypt(tried, iv, aad, sizeof aad, sealed, SAMPLE_SIZE, tag, out) != 0;
done:
    if (tried != NULL)
        backend->context_free(tried);
    EVP_CIPHER_CTX_free(context);
    free(plain);
    free(sealed);
    free(out);
    return good;
}

const struct aes_gcm *aes_gcm_choose(void) {
    if (aes_gcm_openssl.initialise() != 0)
        return NULL;
#ifdef SEALFS_IPSEC_MB
    if (aes_gcm_ipsec_mb_is_faster() && aes_gcm_ipsec_mb.initialise() == 0 && aes_gcm_agrees(&aes_gcm_ipsec_mb))
        return &aes_gcm_ipsec_mb;
#endif
#ifdef SEALFS_LIBGCRYPT
    if (aes_gcm_libgcrypt_is_faster() && aes_gcm_libgcrypt.initialise() == 0 && aes_gcm_agrees(&aes_gcm_libgcrypt))
        return &aes_gcm_libgcrypt;
#endif
    return &aes_gcm_openssl;
}
