/* A tool that listens to NVTX, as Nsight does: a program loads it where NVTX_INJECTION64_PATH names it.
 *
 * Every range that is entered or left becomes a line of the file that LISTENER_LOG names:
 *     push <tab> thread <tab> domain <tab> category <tab> payload (int64, or -) <tab> message
 *     pop <tab> thread <tab> domain
 * A handle is the name itself. The tables of functions are those of NVTX 3: each entry is the place of a function.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CALLBACKS = 1, CORE2 = 5 };
enum { RANGE_PUSH = 4, RANGE_POP = 5, NAME_CATEGORY = 8, REGISTER_STRING = 10, CREATE_DOMAIN = 12 };
enum { INT64 = 2, REGISTERED = 3, MOST_CATEGORIES = 64 };

typedef void (*Function)(void);
typedef struct {
    size_t size;
    int (*functions_of)(int module, Function ***table, unsigned *size);
} Callbacks;
typedef struct {
    uint16_t version, size;
    uint32_t category;
    int32_t color_type;
    uint32_t color;
    int32_t payload_type, reserved;
    int64_t payload;
    int32_t message_type;
    const char *message;
} Attributes;

static FILE *log_file;
static const char *categories[MOST_CATEGORIES] = {"-"};

static const char *create_domain(const char *name) { return strdup(name); }

static const char *register_string(const char *domain, const char *text) { return strdup(text); }

static void name_category(const char *domain, uint32_t id, const char *name) {
    if (id < MOST_CATEGORIES) categories[id] = strdup(name);
}

static int push(const char *domain, const Attributes *given) {
    char payload[32] = "-";
    if (given->payload_type == INT64) snprintf(payload, sizeof payload, "%lld", (long long)given->payload);
    const char *message = given->message_type == REGISTERED ? given->message : "?";
    const char *category = given->category < MOST_CATEGORIES ? categories[given->category] : "?";
    fprintf(log_file, "push\t%d\t%s\t%s\t%s\t%s\n", gettid(), domain, category, payload, message);
    return 0;
}

static int pop(const char *domain) {
    fprintf(log_file, "pop\t%d\t%s\n", gettid(), domain);
    return 0;
}

int InitializeInjectionNvtx2(const void *(*export_table)(uint32_t)) {
    const Callbacks *callbacks = export_table(CALLBACKS);
    Function **table = NULL;
    unsigned size = 0;
    log_file = fopen(getenv("LISTENER_LOG"), "w");
    if (!log_file || !callbacks || !callbacks->functions_of(CORE2, &table, &size) || size <= CREATE_DOMAIN) return 0;
    *table[CREATE_DOMAIN] = (Function)create_domain;
    *table[REGISTER_STRING] = (Function)register_string;
    *table[NAME_CATEGORY] = (Function)name_category;
    *table[RANGE_PUSH] = (Function)push;
    *table[RANGE_POP] = (Function)pop;
    return 1;
}
