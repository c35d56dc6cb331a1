/* FLOE: the known answers of other implementations, and an attacker. Usage: test_floe FOLDER-OF-KNOWN-ANSWERS */
#include <dirent.h>
#include <errno.h>
#include <string.h>

#include "aes_gcm.h"
#include "check.h"
#include "floe.h"

static const uint8_t key[FLOE_KEY_SIZE];
static const uint8_t aad[] = "This is AAD";
#define AAD_SIZE (sizeof aad - 1)

static uint8_t *read_hex(const char *folder, const char *name, const char *kind, size_t *size) {
    char path[1024];
    unsigned value;
    snprintf(path, sizeof path, "%s/%s_%s.txt", folder, name, kind);
    FILE *file = fopen(path, "r");
    CHECK(file != NULL);
    uint8_t *bytes = malloc(1 << 20);
    for (*size = 0; fscanf(file, "%2x", &value) == 1;)
        bytes[(*size)++] = (uint8_t)value;
    fclose(file);
    return bytes;
}

/* Decrypts a whole ciphertext; 0 or the first error. */
static int decrypt(const uint8_t *sealed, size_t size, const uint8_t *from_key, uint8_t *out, size_t *out_size) {
    struct floe_message message;
    struct floe_cipher *cipher = floe_cipher_new();
    size_t place = FLOE_HEADER_SIZE;
    int error = size < FLOE_HEADER_SIZE ? -EIO : floe_open(&message, from_key, aad, AAD_SIZE, sealed);
    *out_size = 0;
    for (uint64_t position = 0; error == 0; position++) {
        size_t left = size - place, length = left < message.segment_length ? left : message.segment_length;
        bool final = length == left;
        if (length < FLOE_SEGMENT_OVERHEAD) {
            error = -EIO;
            break;
        }
        error = floe_decrypt_segment(cipher, &message, sealed + place, length, position, final, out + *out_size);
        *out_size += length - FLOE_SEGMENT_OVERHEAD;
        place += length;
        if (final)
            break;
    }
    floe_cipher_free(cipher);
    return error;
}

static void known_answer(const char *folder, const char *name) {
    size_t sealed_size, plain_size, size;
    uint8_t *sealed = read_hex(folder, name, "ct", &sealed_size), *plain = read_hex(folder, name, "pt", &plain_size);
    uint8_t *out = malloc(sealed_size), wrong[FLOE_KEY_SIZE] = {1};
    struct floe_layout layout;
    uint32_t length;

    CHECK(decrypt(sealed, sealed_size, key, out, &size) == 0);
    CHECK(size == plain_size && memcmp(out, plain, size) == 0);
    CHECK(decrypt(sealed, sealed_size, wrong, out, &size) == -EIO);
    CHECK(floe_segment_length(sealed, &length) == 0 && floe_layout_of(plain_size, length, &layout) == 0);
    CHECK(layout.segments >= 1);
    for (size_t place = 0; place < sealed_size; place += place < 200 ? 1 : 97) { /* any change is noticed */
        sealed[place] ^= 1;
        CHECK(decrypt(sealed, sealed_size, key, out, &size) != 0);
        sealed[place] ^= 1;
    }
    for (size_t cut = 1; cut < sealed_size && cut < 5000; cut += 61)
        CHECK(decrypt(sealed, sealed_size - cut, key, out, &size) != 0);
    free(sealed);
    free(plain);
    free(out);
}

static void layouts(void) {
    struct floe_layout layout;
    static const struct {
        uint64_t size, segments;
        size_t last;
    } cases[] = {{0, 1, 32}, {1, 1, 33}, {968, 1, 1000}, {969, 2, 33}, {1936, 2, 1000}, {1937, 3, 33}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CHECK(floe_layout_of(cases[i].size, 1000, &layout) == 0);
        CHECK(layout.segments == cases[i].segments);
        CHECK(floe_segment_size(&layout, layout.segments - 1) == cases[i].last);
        CHECK(floe_segment_offset(&layout, 1) == 1074);
    }
    CHECK(floe_layout_of(1, 32, &layout) == -EIO);
    CHECK(floe_layout_of(1, FLOE_MAX_SEGMENT + 1, &layout) == -EIO);
    CHECK(floe_layout_of(UINT64_MAX, 33, &layout) == -EIO);
}

/* All known answers with one library's cipher. */
static int known_answers(const char *path) {
    DIR *folder = opendir(path);
    int known = 0;

    CHECK(folder != NULL);
    for (struct dirent *item; (item = readdir(folder)) != NULL;) {
        char *end = strstr(item->d_name, "_ct.txt");
        if (end == NULL)
            continue;
        *end = '\0';
        known_answer(path, item->d_name);
        known++;
    }
    closedir(folder);
    CHECK(known >= 8);
    return known;
}

/* Ciphers that must not be taken. */
static int accept_all(void *context, const uint8_t *iv, const uint8_t *from, size_t from_size, const uint8_t *sealed,
                      size_t size, const uint8_t *tag, uint8_t *out) {
    (void)aes_gcm_openssl.decrypt(context, iv, from, from_size, sealed, size, tag, out);
    return 0;
}

static int one_wrong_byte(void *context, const uint8_t *iv, const uint8_t *from, size_t from_size,
                          const uint8_t *sealed, size_t size, const uint8_t *tag, uint8_t *out) {
    int error = aes_gcm_openssl.decrypt(context, iv, from, from_size, sealed, size, tag, out);
    out[size - 1] ^= error == 0;
    return error;
}

static int refuse_all(void *context, const uint8_t *iv, const uint8_t *from, size_t from_size, const uint8_t *sealed,
                      size_t size, const uint8_t *tag, uint8_t *out) {
    (void)aes_gcm_openssl.decrypt(context, iv, from, from_size, sealed, size, tag, out);
    return -EIO;
}

static void broken_ciphers(void) {
    struct aes_gcm broken = aes_gcm_openssl;
    CHECK(aes_gcm_agrees(&broken));
    broken.decrypt = accept_all;
    CHECK(!aes_gcm_agrees(&broken));
    broken.decrypt = one_wrong_byte;
    CHECK(!aes_gcm_agrees(&broken));
    broken.decrypt = refuse_all;
    CHECK(!aes_gcm_agrees(&broken));
}

int main(int count, char **arguments) {
    CHECK(count == 2);
    for (const struct aes_gcm *const *backend = aes_gcm_all; *backend != NULL; backend++) {
        int error = (*backend)->initialise();
        CHECK(error == 0 || error == -ENOTSUP);
        if (error != 0) {
            printf("floe: %s: not on this processor\n", (*backend)->name);
            continue;
        }
        CHECK(aes_gcm_agrees(*backend));
        floe_use(*backend);
        CHECK(strcmp(floe_aes_gcm(), (*backend)->name) == 0);
        printf("floe: %s: %d known answers\n", (*backend)->name, known_answers(arguments[1]));
    }
    CHECK(aes_gcm_choose() != NULL);
    broken_ciphers();
    layouts();
    return 0;
}
