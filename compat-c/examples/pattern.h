/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Frames whose every byte can be checked, as nm-send -V sends and nm-recv -V expects them, and as pkt-gen --verify
 * does too.
 *
 *    0  broadcast address, 02:00:00:00:00:01, ethertype 0x88b5
 *   14  magic 0x4e4d5844
 *   18  sequence number, from 0
 *   26  length of the frame
 *   28  byte i is seq * 31 + i * 7 + (seq >> 8), modulo 256
 *
 * All numbers are big-endian.
 */
#ifndef PATTERN_H
#define PATTERN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define PATTERN_MAGIC 0x4e4d5844u
#define PATTERN_HEADER 28 /* shortest frame */
#define ETHERNET_MIN 60   /* a NIC fills shorter frames up to this, with zeros */

enum pattern_verdict { PATTERN_GOOD, PATTERN_CORRUPT, PATTERN_OTHER };

static const uint8_t pattern_ethernet[14] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5};

static inline void
pattern_put(uint8_t *at, uint64_t value, int bytes)
{
    while (bytes-- > 0) {
        at[bytes] = (uint8_t)value;
        value >>= 8;
    }
}

static inline uint64_t
pattern_get(const uint8_t *at, int bytes)
{
    uint64_t value = 0;

    while (bytes-- > 0)
        value = value << 8 | *at++;
    return value;
}

static inline uint8_t
pattern_byte(uint64_t seq, size_t i)
{
    return (uint8_t)(seq * 31 + i * 7 + (seq >> 8));
}

/* Length of frame seq when lengths go from min to max. */
static inline size_t
pattern_length(uint64_t seq, size_t min, size_t max)
{
    return min + (size_t)(seq * 7919 % (max - min + 1));
}

/* Write frame seq, of len bytes. */
static inline void
pattern_fill(uint8_t *frame, size_t len, uint64_t seq)
{
    size_t i;

    memcpy(frame, pattern_ethernet, sizeof(pattern_ethernet));
    pattern_put(frame + 14, PATTERN_MAGIC, 4);
    pattern_put(frame + 18, seq, 8);
    pattern_put(frame + 26, len, 2);
    for (i = PATTERN_HEADER; i < len; i++)
        frame[i] = pattern_byte(seq, i);
}

/* Judge a frame, and read its sequence number unless it is not one of ours. */
static inline enum pattern_verdict
pattern_check(const uint8_t *frame, size_t len, uint64_t *seq)
{
    size_t stated, i;
    uint8_t wrong = 0;

    if (len < 18 || frame[12] != 0x88 || frame[13] != 0xb5 || pattern_get(frame + 14, 4) != PATTERN_MAGIC)
        return PATTERN_OTHER;
    if (len < PATTERN_HEADER)
        return PATTERN_CORRUPT;
    *seq = pattern_get(frame + 18, 8);
    stated = (size_t)pattern_get(frame + 26, 2);
    if (stated != len && !(stated < len && len == ETHERNET_MIN))
        return PATTERN_CORRUPT;
    if (memcmp(frame, pattern_ethernet, sizeof(pattern_ethernet)) != 0)
        return PATTERN_CORRUPT;
    for (i = PATTERN_HEADER; i < stated; i++)
        wrong |= frame[i] ^ pattern_byte(*seq, i);
    for (; i < len; i++)
        wrong |= frame[i];
    return wrong == 0 ? PATTERN_GOOD : PATTERN_CORRUPT;
}

#endif /* PATTERN_H */
