/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Writes some frames of the examples' pattern to stdout, each after its length as two bytes, for tests/tests/abi.rs
 * to compare with what the format says; and checks that the examples would notice every damaged byte. Exits 1 if not.
 */
#include <stdio.h>

#include "pattern.h"

int
main(void)
{
    static const uint64_t seqs[] = {0, 1, 255, 256, 65537, 0x123456789abcdef0};
    static const size_t lengths[] = {28, 60, 1514, 9000};
    uint8_t frame[9001], prefix[2];
    uint64_t seq;
    size_t s, l, i;

    for (s = 0; s < sizeof(seqs) / sizeof(seqs[0]); s++) {
        for (l = 0; l < sizeof(lengths) / sizeof(lengths[0]); l++) {
            size_t len = lengths[l];

            pattern_fill(frame, len, seqs[s]);
            pattern_put(prefix, len, 2);
            fwrite(prefix, 1, 2, stdout);
            fwrite(frame, 1, len, stdout);

            if (pattern_check(frame, len, &seq) != PATTERN_GOOD || seq != seqs[s])
                return 1;
            if (pattern_check(frame, len + 1, &seq) != PATTERN_CORRUPT)
                return 1;
            if (pattern_check(frame, len - 1, &seq) != PATTERN_CORRUPT)
                return 1;
            for (i = 0; i < len; i++) {
                frame[i] ^= 0x10;
                if (pattern_check(frame, len, &seq) == PATTERN_GOOD && seq == seqs[s])
                    return 1; /* with another number it would be good, and one frame lost */
                frame[i] ^= 0x10;
            }
        }
    }

    /* A NIC fills short frames up. */
    memset(frame, 0, sizeof(frame));
    pattern_fill(frame, 40, 9);
    if (pattern_check(frame, 50, &seq) != PATTERN_CORRUPT)
        return 1;
    return pattern_check(frame, ETHERNET_MIN, &seq) != PATTERN_GOOD;
}
