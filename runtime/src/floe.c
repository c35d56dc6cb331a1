#include "floe.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "aes_gcm.h"

#define MAX_SEGMENTS ((uint64_t)1 << 40)
#define ROTATION_BITS 20
#define TAG_SIZE 32
#define PREFIX_SIZE 42
#define NOT_FINAL 0xFFFFFFFFu

struct floe_cipher {
    const struct aes_gcm *aes_gcm;
    void *context;
    uint64_t rotation;
    bool keyed;
    uint8_t message_key[48]; /* whose data key the context holds: a message may be gone when this is used again */
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static const struct aes_gcm *aes_gcm; /* chosen when first needed: many a process that has a dataset reads nothing */

static uint32_t big32(const uint8_t *bytes) {
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static void put_big64(uint8_t *out, uint64_t value) {
    for (int i = 7; i >= 0; i--, value >>= 8)
        out[i] = (uint8_t)value;
}

int floe_initialise(void) {
    return aes_gcm_openssl.initialise();
}

static void choose(void) {
    if (aes_gcm == NULL)
        aes_gcm = aes_gcm_choose();
}

const char *floe_aes_gcm(void) {
    pthread_once(&once, choose);
    return aes_gcm != NULL ? aes_gcm->name : "none";
}

void floe_use(const struct aes_gcm *backend) {
    aes_gcm = backend;
}

int floe_segment_length(const uint8_t header[FLOE_HEADER_SIZE], uint32_t *segment_length) {
    uint32_t length = big32(header + 2);

    if (header[0] != 0 || header[1] != 0 || big32(header + 6) != 32)
        return -EIO;
    if (length < FLOE_MIN_SEGMENT || length > FLOE_MAX_SEGMENT)
        return -EIO;
    *segment_length = length;
    return 0;
}

int floe_layout_of(uint64_t size, uint32_t segment_length, struct floe_layout *layout) {
    if (segment_length < FLOE_MIN_SEGMENT || segment_length > FLOE_MAX_SEGMENT)
        return -EIO;
    uint64_t room = segment_length - FLOE_SEGMENT_OVERHEAD;
    uint64_t segments = size == 0 ? 1 : size / room + (size % room != 0);

    if (segments > MAX_SEGMENTS)
        return -EIO;
    *layout = (struct floe_layout){segment_length, size, segments};
    return 0;
}

uint64_t floe_segment_offset(const struct floe_layout *layout, uint64_t position) {
    return FLOE_HEADER_SIZE + position * layout->segment_length;
}

size_t floe_segment_size(const struct floe_layout *layout, uint64_t position) {
    uint64_t room = layout->segment_length - FLOE_SEGMENT_OVERHEAD;
    uint64_t left = layout->plaintext_size - position * room;

    return (size_t)(left < room ? left : room) + FLOE_SEGMENT_OVERHEAD;
}

/* HKDF-Expand-SHA-384(key, prefix || purpose || aad, size): one block, as nothing longer is derived. */
static int derive(const struct floe_message *message, const uint8_t *key, size_t key_size, const uint8_t *purpose,
                  size_t purpose_size, uint8_t *out, size_t size) {
    uint8_t info[PREFIX_SIZE + 32 + FLOE_MAX_AAD + 1], block[EVP_MAX_MD_SIZE];
    unsigned int block_size = sizeof block;
    size_t length = 0;

    memcpy(info, message->prefix, PREFIX_SIZE);
    length += PREFIX_SIZE;
    memcpy(info + length, purpose, purpose_size);
    length += purpose_size;
    memcpy(info + length, message->aad, message->aad_size);
    length += message->aad_size;
    info[length++] = 1;
    if (HMAC(EVP_sha384(), key, (int)key_size, info, length, block, &block_size) == NULL || block_size < size)
        return -ENOMEM;
    memcpy(out, block, size);
    OPENSSL_cleanse(block, sizeof block);
    return 0;
}

int floe_open(struct floe_message *message, const uint8_t key[FLOE_KEY_SIZE], const uint8_t *aad, size_t aad_size,
              const uint8_t header[FLOE_HEADER_SIZE]) {
    static const uint8_t header_tag[] = {'H', 'E', 'A', 'D', 'E', 'R', '_', 'T', 'A', 'G', ':'};
    static const uint8_t message_key[] = {'M', 'E', 'S', 'S', 'A', 'G', 'E', '_', 'K', 'E', 'Y', ':'};
    uint8_t tag[TAG_SIZE];
    int error;

    if (aad_size > FLOE_MAX_AAD)
        return -EINVAL;
    memset(message, 0, sizeof *message);
    if ((error = floe_segment_length(header, &message->segment_length)) != 0)
        return error;
    memcpy(message->prefix, header, PREFIX_SIZE);
    memcpy(message->aad, aad, aad_size);
    message->aad_size = aad_size;
    error = derive(message, key, FLOE_KEY_SIZE, header_tag, sizeof header_tag, tag, sizeof tag);
    if (error == 0 && CRYPTO_memcmp(tag, header + PREFIX_SIZE, TAG_SIZE) != 0)
        error = -EIO;
    if (error == 0)
        error = derive(message, key, FLOE_KEY_SIZE, message_key, sizeof message_key, message->message_key,
                       sizeof message->message_key);
    OPENSSL_cleanse(tag, sizeof tag);
    if (error != 0)
        floe_wipe(message);
    return error;
}

void floe_wipe(struct floe_message *message) {
    OPENSSL_cleanse(message, sizeof *message);
}

struct floe_cipher *floe_cipher_new(void) {
    struct floe_cipher *cipher = calloc(1, sizeof *cipher);

    pthread_once(&once, choose);
    if (cipher != NULL && (cipher->aes_gcm = aes_gcm) != NULL && (cipher->context = aes_gcm->context_new()) != NULL)
        return cipher;
    free(cipher);
    return NULL;
}

void floe_cipher_free(struct floe_cipher *cipher) {
    if (cipher == NULL)
        return;
    cipher->aes_gcm->context_free(cipher->context);
    OPENSSL_cleanse(cipher, sizeof *cipher);
    free(cipher);
}

/* Sets the context to the data key of `position`; keys rotate every 2^20 segments. */
static int set_key(struct floe_cipher *cipher, const struct floe_message *message, uint64_t position) {
    uint64_t rotation = position >> ROTATION_BITS;
    uint8_t purpose[12] = {'D', 'E', 'K', ':'}, key[FLOE_KEY_SIZE];
    int error;

    if (cipher->keyed && cipher->rotation == rotation &&
        memcmp(cipher->message_key, message->message_key, sizeof cipher->message_key) == 0)
        return 0;
    cipher->keyed = false;
    put_big64(purpose + 4, rotation << ROTATION_BITS);
    error = derive(message, message->message_key, sizeof message->message_key, purpose, sizeof purpose, key, sizeof key);
    if (error == 0)
        error = cipher->aes_gcm->set_key(cipher->context, key);
    OPENSSL_cleanse(key, sizeof key);
    if (error != 0)
        return error;
    memcpy(cipher->message_key, message->message_key, sizeof cipher->message_key);
    cipher->rotation = rotation;
    cipher->keyed = true;
    return 0;
}

int floe_decrypt_segment(struct floe_cipher *cipher, const struct floe_message *message, const uint8_t *segment,
                         size_t size, uint64_t position, bool final, uint8_t *out) {
    bool whole = size == message->segment_length ||
                 (final && size >= FLOE_SEGMENT_OVERHEAD && size < message->segment_length);
    size_t plain = size - FLOE_SEGMENT_OVERHEAD;
    uint8_t aad[9];
    int error;

    if (!whole || big32(segment) != (final ? (uint32_t)size : NOT_FINAL))
        return -EIO;
    if ((error = set_key(cipher, message, position)) != 0)
        return error;
    put_big64(aad, position);
    aad[8] = final;
    error = cipher->aes_gcm->decrypt(cipher->context, segment + 4, aad, sizeof aad, segment + 4 + AES_GCM_IV_SIZE, plain,
                                     segment + size - AES_GCM_TAG_SIZE, out);
    if (error == 0)
        return 0;
    memset(out, 0, plain);
    cipher->keyed = false;
    return error;
}
