/*
 * hashmodel.h - the local model server's arithmetic: vectors and scores without a model.
 *
 * Texts that share words or parts of words come out near each other. Same bytes, same vector, on
 * every machine of the same float arithmetic.
 */
#ifndef MP_MOCK_HASHMODEL_H
#define MP_MOCK_HASHMODEL_H

#include <stddef.h>
#include <stdint.h>

/*
 * out[dim] becomes the unit vector of text[0..n), any bytes. Feature hashing with signs, after
 * Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", ICML 2009: lower-cased
 * words and their character 3- to 5-grams, repeats damped by the square root, common English words
 * light. A text without words gets the unit vector of its first axis. dim 0 does nothing.
 */
void mp__hash_embed(const char *text, size_t n, uint32_t dim, float *out);

/* How well doc answers query, 0..1: cosine plus the share of the query's words that doc has. */
float mp__hash_score(const char *query, size_t qn, const char *doc, size_t dn);

#endif
