/*
 * hmac.c - SHA-256 and HMAC-SHA256 (FIPS 180-4, RFC 2104) for signatures, by OpenSSL's libcrypto.
 */
#include "binding/binding.h"
#include "task/task.h"

#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

/* hmac_sha256(key, data) -> 32 bytes */
static int l_hmac_sha256(lua_State *L)
{
    size_t key_len;
    size_t n;
    const char *key = luaL_checklstring(L, 1, &key_len);
    const char *data = luaL_checklstring(L, 2, &n);
    unsigned char out[EVP_MAX_MD_SIZE];
    unsigned int out_len = 0;
    luaL_argcheck(L, key_len <= INT_MAX, 1, "too long");
    if (HMAC(EVP_sha256(), key, (int)key_len, (const unsigned char *)data, n, out, &out_len) ==
        NULL)
        return luaL_error(L, "hmac_sha256: the system's libcrypto refused");
    lua_pushlstring(L, (const char *)out, out_len);
    return 1;
}

/* sha256(data) -> 32 bytes */
static int l_sha256(lua_State *L)
{
    size_t n;
    const char *data = luaL_checklstring(L, 1, &n);
    unsigned char out[EVP_MAX_MD_SIZE];
    unsigned int out_len = 0;
    if (EVP_Digest(data, n, out, &out_len, EVP_sha256(), NULL) != 1)
        return luaL_error(L, "sha256: the system's libcrypto refused");
    lua_pushlstring(L, (const char *)out, out_len);
    return 1;
}

/* same_bytes(a, b) -> boolean, in a time that tells of the contents nothing */
static int l_same_bytes(lua_State *L)
{
    size_t an;
    size_t bn;
    const char *a = luaL_checklstring(L, 1, &an);
    const char *b = luaL_checklstring(L, 2, &bn);
    lua_pushboolean(L, an == bn && CRYPTO_memcmp(a, b, an) == 0);
    return 1;
}

void mp__open_hmac(lua_State *L)
{
    static const luaL_Reg functions[] = {{"hmac_sha256", l_hmac_sha256},
                                         {"sha256", l_sha256},
                                         {"same_bytes", l_same_bytes},
                                         {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
}
