/*
 * guard.c - addresses to which nothing may connect, for programs that run scripts of others.
 *
 * Asked for each socket that curl opens, so after name resolution and for redirects and proxies too: a
 * name that means a public address when it is checked and a private one when it is used gains nothing.
 */
#include "engine/transport/internal.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

struct net {
    uint8_t addr[16]; /* IPv4 as ::ffff:a.b.c.d */
    uint8_t bits;
    uint16_t port; /* 0: any */
};

static struct net allowed[MP__GUARD_MAX];
static size_t nallowed;
static int active;

/* IANA's special-purpose registries: not global. */
static const char *const special[] = {
    "0.0.0.0/8",       "10.0.0.0/8",     "100.64.0.0/10", "127.0.0.0/8",    "169.254.0.0/16",
    "172.16.0.0/12",   "192.0.0.0/24",   "192.0.2.0/24",  "192.168.0.0/16", "198.18.0.0/15",
    "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",   "::/127",         "100::/64",
    "2001:db8::/32",   "fc00::/7",       "fe80::/9",      "ff00::/8"};
static struct net specials[sizeof(special) / sizeof(special[0])];

static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static int has_prefix(const uint8_t *a, const uint8_t *b, unsigned bits)
{
    if (memcmp(a, b, bits / 8) != 0)
        return 0;
    unsigned rest = bits % 8;
    return rest == 0 || ((a[bits / 8] ^ b[bits / 8]) >> (8 - rest)) == 0;
}

/* "10.0.0.0/8", "127.0.0.1:8089", "::1", "[::1]:80" */
static int parse(const char *text, struct net *out)
{
    char host[64];
    const char *p = text, *end = text + strlen(text);
    unsigned long port = 0, bits;
    char *stop;
    if (*p == '[') {
        end = strchr(p, ']');
        if (end == NULL)
            return -1;
        p++;
        port = end[1] == ':' ? strtoul(end + 2, &stop, 10) : 0;
        if ((end[1] != '\0' && end[1] != ':') || port > 65535 || (end[1] == ':' && *stop != '\0'))
            return -1;
    } else if (strchr(p, ':') != NULL && strchr(p, ':') == strrchr(p, ':')) {
        end = strchr(p, ':');
        port = strtoul(end + 1, &stop, 10);
        if (*stop != '\0' || end[1] == '\0' || port > 65535)
            return -1;
    }
    if ((size_t)(end - p) >= sizeof(host))
        return -1;
    memcpy(host, p, (size_t)(end - p));
    host[end - p] = '\0';
    char *slash = strchr(host, '/');
    if (slash != NULL)
        *slash = '\0';
    int v4 = inet_pton(AF_INET, host, out->addr + 12) == 1;
    if (v4)
        memcpy(out->addr, mapped, sizeof(mapped));
    else if (inet_pton(AF_INET6, host, out->addr) != 1)
        return -1;
    bits = v4 ? 32 : 128;
    if (slash != NULL) {
        unsigned long most = bits;
        bits = strtoul(slash + 1, &stop, 10);
        if (slash[1] == '\0' || *stop != '\0' || bits > most)
            return -1;
    }
    out->bits = (uint8_t)(v4 ? bits + 96 : bits);
    out->port = (uint16_t)port;
    return 0;
}

int mp__guard_set(const char *const *list, size_t n)
{
    struct net parsed[MP__GUARD_MAX] = {0};
    for (size_t i = 0; i < n; i++)
        if (list[i] == NULL || parse(list[i], &parsed[i]) != 0)
            return (int)i;
    for (size_t i = 0; i < sizeof(special) / sizeof(special[0]); i++)
        parse(special[i], &specials[i]);
    memcpy(allowed, parsed, n * sizeof(*parsed));
    nallowed = n;
    active = 1;
    return -1;
}

static int is_special(const uint8_t *addr)
{
    static const uint8_t nat64[12] = {0, 0x64, 0xff, 0x9b};
    uint8_t inner[16];
    for (size_t i = 0; i < sizeof(special) / sizeof(special[0]); i++)
        if (has_prefix(addr, specials[i].addr, specials[i].bits))
            return 1;
    memcpy(inner, mapped, sizeof(mapped)); /* addresses with an IPv4 one in them */
    if (memcmp(addr, nat64, sizeof(nat64)) == 0)
        memcpy(inner + 12, addr + 12, 4);
    else if (addr[0] == 0x20 && addr[1] == 0x02)
        memcpy(inner + 12, addr + 2, 4);
    else
        return 0;
    return is_special(inner);
}

int mp__guard_allows(const struct sockaddr *sa)
{
    uint8_t addr[16];
    uint16_t port;
    if (!active)
        return 1;
    if (sa->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)sa;
        memcpy(addr, mapped, sizeof(mapped));
        memcpy(addr + 12, &in->sin_addr, 4);
        port = ntohs(in->sin_port);
    } else if (sa->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)sa;
        memcpy(addr, &in6->sin6_addr, 16);
        port = ntohs(in6->sin6_port);
    } else {
        return 0;
    }
    for (size_t i = 0; i < nallowed; i++)
        if (has_prefix(addr, allowed[i].addr, allowed[i].bits) &&
            (allowed[i].port == 0 || allowed[i].port == port))
            return 1;
    return !is_special(addr);
}
