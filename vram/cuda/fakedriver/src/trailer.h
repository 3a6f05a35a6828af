// The page behind the bytes of an allocation, which every process that maps it shares.
#ifndef TRAILER_H
#define TRAILER_H

#include "fake.h"

int trailer_file(size_t size);         // a file with room for size bytes and the trailer, or -1
bool trailer_map(struct alloc *a);     // of an allocation: makes the cookie; of an import: reads it
void trailer_end(struct alloc *a);     // of an allocation: it is over for everyone; of an import: here
bool trailer_valid(struct alloc *a);   // whether the allocation still exists
int trailer_users(struct alloc *a);    // how often it is imported

#endif
