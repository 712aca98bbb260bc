/* The part of nDPI flowmeter needs, with one layout for every nDPI version.
 *
 * lib.rs declares the same by hand; the sizes are compared in its tests. */
#ifndef FLOWMETER_NDPI_SHIM_H
#define FLOWMETER_NDPI_SHIM_H

#include <stddef.h>
#include <stdint.h>

struct fm_module; /* a detection module, for one thread */
struct fm_flow;   /* a flow under dissection, belonging to one module */

enum fm_fingerprints {
  FM_FINGERPRINTS_NONE = 0,
  FM_FINGERPRINTS_TLS = 1,  /* JA4 (nDPI 4.12 and later) and JA3S */
  FM_FINGERPRINTS_SSH = 2,  /* HASSH of both */
  FM_FINGERPRINTS_DHCP = 3, /* the client's options */
};

/* What is known of a flow. Texts end with a NUL and are cut to fit. */
struct fm_result {
  char application[128]; /* "Master.App", or the one that is known */
  char category[64];
  char server_name[256];
  char client_fingerprint[64];
  char server_fingerprint[64];
  char user_agent[512];
  char content_type[128];
  uint8_t confidence; /* nDPI 5.0's numbering, whatever the version */
  uint8_t guessed;    /* 1 if giving up guessed it from addresses and ports */
  uint8_t fingerprints; /* of which kind they are: an enum fm_fingerprints */
};

/* What else is known of a flow. */
struct fm_details {
  char issuer[512]; /* of the server's certificate, as "C=.., CN=.." */
  char subject[512];
  uint64_t risks; /* bit n: the risk that fm_risk_name(n) names */
  uint16_t risk_score;
  uint16_t tls_version; /* 0x0303 is TLS 1.2; 0 if unknown */
  uint16_t tls_cipher;  /* IANA's number; 0 if unknown */
};

/* What this shim was compiled for, and what it runs with. */
struct fm_agreement {
  uint32_t header_api, library_api;
  uint32_t header_flow_size, library_flow_size;
};

/* The library's version, static. */
const char *fm_version(void);
/* 1 if the running library has the layouts of the headers, else 0. Either way fills `out`. */
int fm_agreement(struct fm_agreement *out);
/* sizeof(struct fm_result), for a test of the caller's declaration. */
size_t fm_result_size(void);

/* sizeof(struct fm_details), likewise. */
size_t fm_details_size(void);

/* NULL on failure. Must not run beside another one. `licence` may be NULL; used from nDPI 6.0. */
struct fm_module *fm_module_new(const char *licence);
void fm_module_free(struct fm_module *module);

/* NULL if out of memory. */
struct fm_flow *fm_flow_new(void);
void fm_flow_free(struct fm_flow *flow);

/* Dissects a packet from its IP header on. */
void fm_process(struct fm_module *module, struct fm_flow *flow, const uint8_t *packet,
                uint16_t length, uint64_t time_ms);
/* 1 if the application is not known. */
int fm_unknown(const struct fm_flow *flow);
/* 1 if more packets would tell nothing new. */
int fm_done(struct fm_module *module, struct fm_flow *flow);
/* Ends the detection; may guess. */
void fm_giveup(struct fm_module *module, struct fm_flow *flow);
/* Tells the flow of the `length` bytes of a host's name that nDPI missed. The application is then
 * the one that nDPI knows the host by, if any. Only of TLS, DTLS and QUIC, and only if nDPI has no
 * name. */
void fm_name_host(struct fm_module *module, struct fm_flow *flow, const char *host,
                  size_t length);
void fm_result(struct fm_module *module, const struct fm_flow *flow, struct fm_result *out);
void fm_details(const struct fm_flow *flow, struct fm_details *out);
/* nDPI's name of a risk, static; NULL if it has none. */
const char *fm_risk_name(unsigned risk);
/* IANA's name of a cipher suite, static; NULL if nDPI does not know it. */
const char *fm_cipher_name(unsigned cipher);

#endif
