/* FLOE, the content cipher (https://c2sp.org/FLOE), and nothing else: decryption of single segments.
 *
 * AES-256-GCM, HKDF-Expand-SHA-384, a 32-byte IV; see sealfs/floe.py and docs/format.md. Functions return 0 or a
 * negative errno: -EIO for what does not authenticate, -ENOMEM.
 *
 * Threading: a `floe_message` is immutable once opened; a `floe_cipher` belongs to one thread at a time.
 */
#ifndef SEALFS_FLOE_H
#define SEALFS_FLOE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FLOE_KEY_SIZE 32
#define FLOE_HEADER_SIZE 74
#define FLOE_SEGMENT_OVERHEAD 32 /* length field 4, AEAD IV 12, AEAD tag 16 */
#define FLOE_MIN_SEGMENT (FLOE_SEGMENT_OVERHEAD + 1)
#define FLOE_MAX_SEGMENT (16u << 20)
#define FLOE_MAX_AAD 64

/* Where things lie in one ciphertext. */
struct floe_layout {
    uint32_t segment_length; /* of a whole ciphertext segment */
    uint64_t plaintext_size;
    uint64_t segments; /* at least 1 */
};

/* The keys of one ciphertext. */
struct floe_message {
    uint32_t segment_length;
    size_t aad_size;
    uint8_t prefix[42]; /* parameters and IV */
    uint8_t aad[FLOE_MAX_AAD];
    uint8_t message_key[48];
};

struct aes_gcm;
struct floe_cipher; /* an AES context and which key it is set to */

/* Prepares the library's copy of libcrypto; idempotent. */
int floe_initialise(void);

/* Which library's AES-256-GCM is in use (aes_gcm.h). */
const char *floe_aes_gcm(void);

/* Uses another one from now on; for tests, which try them all. It must have been initialised. */
void floe_use(const struct aes_gcm *backend);

/* Reads the segment length that a header names, before anything is authenticated. */
int floe_segment_length(const uint8_t header[FLOE_HEADER_SIZE], uint32_t *segment_length);

/* The layout that a plaintext of `size` bytes has. */
int floe_layout_of(uint64_t size, uint32_t segment_length, struct floe_layout *layout);

uint64_t floe_segment_offset(const struct floe_layout *layout, uint64_t position);
size_t floe_segment_size(const struct floe_layout *layout, uint64_t position);

/* Checks a header against key and AAD and derives the message's keys. */
int floe_open(struct floe_message *message, const uint8_t key[FLOE_KEY_SIZE], const uint8_t *aad, size_t aad_size,
              const uint8_t header[FLOE_HEADER_SIZE]);
void floe_wipe(struct floe_message *message);

struct floe_cipher *floe_cipher_new(void);
void floe_cipher_free(struct floe_cipher *cipher);

/* Authenticates one segment, which nobody else can change meanwhile, and writes its plaintext, which is
 * FLOE_SEGMENT_OVERHEAD bytes shorter, to `out`; on failure `out` is zeroed. `final` comes from authentic data. */
int floe_decrypt_segment(struct floe_cipher *cipher, const struct floe_message *message, const uint8_t *segment,
                         size_t size, uint64_t position, bool final, uint8_t *out);

#endif
