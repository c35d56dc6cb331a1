/* Mappings that Gramine can't take through fork (gaps.c). */
#ifndef SEALFS_GAPS_H
#define SEALFS_GAPS_H

/* Before fork, where the kernel is Gramine's: replaces them. */
void gaps_fill(void);

#endif
