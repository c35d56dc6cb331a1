#ifdef SEALFS_LIBGCRYPT
#include <errno.h>
#include <gcrypt.h>
#include <stdio.h>

#include "aes_gcm.h"

/* Debian's static libraries are made for programs: they expect these of libc within reach, which they are not of a
 * shared object. The linker has them use ours instead (`--wrap` in the Makefile). */
extern FILE *__real_stdin, *__real_stdout, *__real_stderr;
FILE *__wrap_stdin, *__wrap_stdout, *__wrap_stderr;
char __wrap___libc_single_threaded; /* no: locks lock */

__attribute__((constructor)) static void set_streams(void) {
    __wrap_stdin = __real_stdin;
    __wrap_stdout = __real_stdout;
    __wrap_stderr = __real_stderr;
}

static int initialise(void) {
    if (gcry_control(GCRYCTL_INITIALIZATION_FINISHED_P) != 0)
        return 0;
    gcry_control(GCRYCTL_NO_FIPS_MODE); /* which would measure a library's file that is not there, and abort */
    if (gcry_check_version(GCRYPT_VERSION) == NULL)
        return -ENOTSUP;
    gcry_control(GCRYCTL_DISABLE_SECMEM, 0); /* nothing else here is locked in memory either */
    gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0);
    return 0;
}

bool aes_gcm_libgcrypt_is_faster(void) {
    return __builtin_cpu_supports("vaes") && __builtin_cpu_supports("vpclmulqdq") && __builtin_cpu_supports("avx2") &&
           !__builtin_cpu_supports("avx512f");
}

static void *context_new(void) {
    gcry_cipher_hd_t context;

    return gcry_cipher_open(&context, GCRY_CIPHER_AES256, GCRY_CIPHER_MODE_GCM, 0) == 0 ? context : NULL;
}

static void context_free(void *context) {
    gcry_cipher_close(context); /* wipes it */
}

static int set_key(void *context, const uint8_t key[AES_GCM_KEY_SIZE]) {
    return gcry_cipher_setkey(context, key, AES_GCM_KEY_SIZE) == 0 ? 0 : -ENOMEM;
}

static int decrypt(void *context, const uint8_t iv[AES_GCM_IV_SIZE], const uint8_t *aad, size_t aad_size,
                   const uint8_t *sealed, size_t size, const uint8_t tag[AES_GCM_TAG_SIZE], uint8_t *out) {
    bool good = gcry_cipher_setiv(context, iv, AES_GCM_IV_SIZE) == 0 &&
                gcry_cipher_authenticate(context, aad, aad_size) == 0 &&
                (size == 0 || gcry_cipher_decrypt(context, out, size, sealed, size) == 0) &&
                gcry_cipher_checktag(context, tag, AES_GCM_TAG_SIZE) == 0;

    return good ? 0 : -EIO;
}

const struct aes_gcm aes_gcm_libgcrypt = {"libgcrypt", initialise, context_new, context_free, set_key, decrypt};
#endif
