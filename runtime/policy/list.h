/* list.h - circular doubly linked lists; links live inside the objects, so nothing allocates. */
#ifndef MP_POLICY_LIST_H
#define MP_POLICY_LIST_H

#include <stddef.h>

struct mpp_link {
    struct mpp_link *next, *prev; /* both NULL: on no list */
};

#define MPP_ENTRY(link, type, member) ((type *)(void *)((char *)(link)-offsetof(type, member)))

static inline void mpp_list_init(struct mpp_link *head)
{
    head->next = head->prev = head;
}

static inline int mpp_list_empty(const struct mpp_link *head)
{
    return head->next == head;
}

static inline int mpp_linked(const struct mpp_link *link)
{
    return link->next != NULL;
}

static inline void mpp_list_insert(struct mpp_link *before, struct mpp_link *link)
{
    link->next = before;
    link->prev = before->prev;
    before->prev->next = link;
    before->prev = link;
}

static inline void mpp_list_push(struct mpp_link *head, struct mpp_link *link)
{
    mpp_list_insert(head, link);
}

static inline void mpp_list_unshift(struct mpp_link *head, struct mpp_link *link)
{
    mpp_list_insert(head->next, link);
}

/* Harmless for a link on no list. */
static inline void mpp_list_remove(struct mpp_link *link)
{
    if (!link->next)
        return;
    link->prev->next = link->next;
    link->next->prev = link->prev;
    link->next = link->prev = NULL;
}

static inline struct mpp_link *mpp_list_shift(struct mpp_link *head)
{
    struct mpp_link *link = head->next;

    if (link == head)
        return NULL;
    mpp_list_remove(link);
    return link;
}

#endif
