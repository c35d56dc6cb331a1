#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "aes_gcm.h"

static EVP_CIPHER *cipher; /* fetched once: looking it up costs more than a segment's key schedule */

static int initialise(void) {
    if (cipher != NULL)
        return 0;
    /* no configuration file and no exit handler: this copy of libcrypto must not notice the application's; and no
     * tables of names and texts, which take a third of the time and are not used */
    uint64_t options = OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ATEXIT | OPENSSL_INIT_NO_LOAD_CRYPTO_STRINGS |
                       OPENSSL_INIT_NO_ADD_ALL_CIPHERS | OPENSSL_INIT_NO_ADD_ALL_DIGESTS;
    if (OPENSSL_init_crypto(options, NULL) != 1)
        return -ENOMEM;
    cipher = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    return cipher != NULL ? 0 : -ENOMEM;
}

static void *context_new(void) {
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();

    if (context != NULL && EVP_DecryptInit_ex2(context, cipher, NULL, NULL, NULL) == 1)
        return context;
    EVP_CIPHER_CTX_free(context);
    return NULL;
}

static void context_free(void *context) {
    EVP_CIPHER_CTX_free(context); /* wipes the key schedule */
}

static int set_key(void *context, const uint8_t key[AES_GCM_KEY_SIZE]) {
    return EVP_DecryptInit_ex2(context, NULL, key, NULL, NULL) == 1 ? 0 : -ENOMEM;
}

static int decrypt(void *context, const uint8_t iv[AES_GCM_IV_SIZE], const uint8_t *aad, size_t aad_size,
                   const uint8_t *sealed, size_t size, const uint8_t tag[AES_GCM_TAG_SIZE], uint8_t *out) {
    int count;

    if (EVP_DecryptInit_ex2(context, NULL, NULL, iv, NULL) == 1 &&
        EVP_DecryptUpdate(context, NULL, &count, aad, (int)aad_size) == 1 &&
        EVP_DecryptUpdate(context, out, &count, sealed, (int)size) == 1 &&
        EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, AES_GCM_TAG_SIZE, (void *)(uintptr_t)tag) == 1 &&
        EVP_DecryptFinal_ex(context, out + size, &count) == 1)
        return 0;
    return -EIO;
}

const struct aes_gcm aes_gcm_openssl = {"openssl", initialise, context_new, context_free, set_key, decrypt};
