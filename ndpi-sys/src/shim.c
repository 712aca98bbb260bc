/* How does each nDPI version want to be called?
 *
 * Every difference between versions is decided here, so that the Rust side knows one API. The
 * letters name the points at which versions differ; each is one conditional. */

#include <stdlib.h>
#include <string.h>

#include <ndpi_api.h>

#include "shim.h"

#define NDPI_AT_LEAST(major, minor) \
  (NDPI_MAJOR > (major) || (NDPI_MAJOR == (major) && NDPI_MINOR >= (minor)))

#if !NDPI_AT_LEAST(4, 2)
#error "nDPI 4.2 or later is needed"
#endif

struct fm_module {
  struct ndpi_detection_module_struct *ndpi;
#if NDPI_AT_LEAST(4, 10)
  struct ndpi_global_context *context;
#endif
};

struct fm_flow {
  ndpi_protocol protocol;
  uint8_t guessed;
  /* Embedded: its size is compared with the library's before any flow is made. */
  struct ndpi_flow_struct ndpi;
};

/* A: where the two protocols of a result are. */
#if NDPI_AT_LEAST(4, 11)
#define MASTER(p) ((p).proto.master_protocol)
#define APP(p) ((p).proto.app_protocol)
#else
#define MASTER(p) ((p).master_protocol)
#define APP(p) ((p).app_protocol)
#endif

const char *fm_version(void) { return (const char *)ndpi_revision(); }

int fm_agreement(struct fm_agreement *out) {
  out->header_api = NDPI_API_VERSION;
  out->library_api = ndpi_get_api_version();
  out->header_flow_size = (uint32_t)sizeof(struct ndpi_flow_struct);
  out->library_flow_size = ndpi_detection_get_sizeof_ndpi_flow_struct();
  return out->header_api == out->library_api && out->header_flow_size == out->library_flow_size;
}

size_t fm_result_size(void) { return sizeof(struct fm_result); }

size_t fm_details_size(void) { return sizeof(struct fm_details); }

void fm_module_free(struct fm_module *module) {
  if (module == NULL) return;
  if (module->ndpi != NULL) ndpi_exit_detection_module(module->ndpi);
#if NDPI_AT_LEAST(4, 10)
  if (module->context != NULL) ndpi_global_deinit(module->context);
#endif
  free(module);
}

struct fm_module *fm_module_new(const char *licence) {
  struct fm_module *module = calloc(1, sizeof *module);
  if (module == NULL) return NULL;

  /* B: the arguments of the initialisation. */
#if NDPI_AT_LEAST(4, 10)
  /* A context of our own: NULL would do, but then caches are never shared by mistake. */
  module->context = ndpi_global_init();
#endif
#if NDPI_AT_LEAST(6, 0)
  module->ndpi = ndpi_init_detection_module(module->context, (char *)licence);
#elif NDPI_AT_LEAST(4, 10)
  (void)licence;
  module->ndpi = ndpi_init_detection_module(module->context);
#else
  (void)licence;
  module->ndpi = ndpi_init_detection_module(ndpi_no_prefs);
#endif
  if (module->ndpi == NULL) {
    fm_module_free(module);
    return NULL;
  }

  /* C: until 5.0 nothing is dissected unless asked for. */
#if !NDPI_AT_LEAST(5, 0)
  NDPI_PROTOCOL_BITMASK all;
  NDPI_BITMASK_SET_ALL(all);
  ndpi_set_protocol_detection_bitmask2(module->ndpi, &all);
#endif

  /* C2: 5.0 calls all of DNS "DNS" unless told otherwise. An older version may not know the
   * option: it subclassifies anyway. */
#if NDPI_AT_LEAST(4, 10)
  (void)ndpi_set_config(module->ndpi, "dns", "subclassification", "enable");
#endif

  /* D: whether finalising can fail. */
#if NDPI_AT_LEAST(4, 10)
  if (ndpi_finalize_initialization(module->ndpi) != 0) {
    fm_module_free(module);
    return NULL;
  }
#else
  ndpi_finalize_initialization(module->ndpi);
#endif
  return module;
}

struct fm_flow *fm_flow_new(void) { return calloc(1, sizeof(struct fm_flow)); }

void fm_flow_free(struct fm_flow *flow) {
  if (flow == NULL) return;
  ndpi_free_flow_data(&flow->ndpi);
  free(flow);
}

void fm_process(struct fm_module *module, struct fm_flow *flow, const uint8_t *packet,
                uint16_t length, uint64_t time_ms) {
  /* F: 4.6 added what the caller knows of the flow; we know nothing more than nDPI. */
#if NDPI_AT_LEAST(4, 6)
  flow->protocol =
      ndpi_detection_process_packet(module->ndpi, &flow->ndpi, packet, length, time_ms, NULL);
#else
  flow->protocol = ndpi_detection_process_packet(module->ndpi, &flow->ndpi, packet, length, time_ms);
#endif
}

int fm_unknown(const struct fm_flow *flow) {
  return APP(flow->protocol) == NDPI_PROTOCOL_UNKNOWN;
}

int fm_done(struct fm_module *module, struct fm_flow *flow) {
  /* E: who says that a flow is done. */
#if NDPI_AT_LEAST(5, 0)
  (void)module;
  return flow->protocol.state == NDPI_STATE_CLASSIFIED;
#else
  return !fm_unknown(flow) && !ndpi_extra_dissection_possible(module->ndpi, &flow->ndpi);
#endif
}

void fm_giveup(struct fm_module *module, struct fm_flow *flow) {
  /* G: the guess used to be an option and its success an output. */
#if NDPI_AT_LEAST(5, 0)
  flow->protocol = ndpi_detection_giveup(module->ndpi, &flow->ndpi);
  flow->guessed = flow->ndpi.protocol_was_guessed != 0;
#else
  u_int8_t guessed = 0;
#if NDPI_AT_LEAST(4, 10)
  flow->protocol = ndpi_detection_giveup(module->ndpi, &flow->ndpi, &guessed);
#else
  flow->protocol = ndpi_detection_giveup(module->ndpi, &flow->ndpi, 1, &guessed);
#endif
  flow->guessed = guessed != 0;
#endif
}

/* Copies a text that may be absent, or fill its array without a NUL. */
static void copy(char *to, size_t size, const char *from, size_t from_size) {
  if (from == NULL) return;
  size_t length = strnlen(from, from_size < size ? from_size : size - 1);
  if (length > size - 1) length = size - 1;
  memcpy(to, from, length);
  to[length] = '\0';
}

#define COPY_ARRAY(to, from) copy((to), sizeof(to), (const char *)(from), sizeof(from))
#define COPY_STRING(to, from) copy((to), sizeof(to), (from), SIZE_MAX)

/* H: the enum is renumbered between versions; its names are mapped to 5.0's numbers. */
static uint8_t confidence(unsigned value) {
  switch (value) {
    case NDPI_CONFIDENCE_UNKNOWN: return 0;
    case NDPI_CONFIDENCE_MATCH_BY_PORT: return 1;
#if NDPI_AT_LEAST(4, 6)
    case NDPI_CONFIDENCE_NBPF: return 2;
#endif
#if NDPI_AT_LEAST(4, 4)
    case NDPI_CONFIDENCE_DPI_PARTIAL: return 3;
    case NDPI_CONFIDENCE_DPI_PARTIAL_CACHE: return 4;
#endif
    case NDPI_CONFIDENCE_DPI_CACHE: return 5;
    case NDPI_CONFIDENCE_DPI: return 6;
#if !NDPI_AT_LEAST(4, 6) || NDPI_AT_LEAST(4, 8)
    case NDPI_CONFIDENCE_MATCH_BY_IP: return 7;
#endif
#if NDPI_AT_LEAST(4, 8)
    case NDPI_CONFIDENCE_DPI_AGGRESSIVE: return 8;
#endif
#if NDPI_AT_LEAST(4, 10)
    case NDPI_CONFIDENCE_CUSTOM_RULE: return 9;
#endif
    default: return 0;
  }
}

static int is(const struct fm_flow *flow, unsigned protocol) {
  return MASTER(flow->protocol) == protocol || APP(flow->protocol) == protocol;
}

/* The protocols that own the `tls_quic` member: those for which nDPI frees what it points to. */
static int is_tls_like(const struct fm_flow *flow) {
  /* FTPS came with 4.6. */
#if NDPI_AT_LEAST(4, 6)
  if (is(flow, NDPI_PROTOCOL_FTPS)) return 1;
#endif
  return is(flow, NDPI_PROTOCOL_TLS) || is(flow, NDPI_PROTOCOL_DTLS) ||
         is(flow, NDPI_PROTOCOL_QUIC) || is(flow, NDPI_PROTOCOL_MAIL_SMTPS) ||
         is(flow, NDPI_PROTOCOL_MAIL_IMAPS) || is(flow, NDPI_PROTOCOL_MAIL_POPS);
}

void fm_result(struct fm_module *module, const struct fm_flow *flow, struct fm_result *out) {
  const struct ndpi_flow_struct *ndpi = &flow->ndpi;
  memset(out, 0, sizeof *out);

  /* I: the name is that of the two protocols alone since 5.0. */
#if NDPI_AT_LEAST(5, 0)
  ndpi_protocol2name(module->ndpi, flow->protocol.proto, out->application, sizeof out->application);
#else
  ndpi_protocol2name(module->ndpi, flow->protocol, out->application, sizeof out->application);
#endif
  COPY_STRING(out->category, ndpi_category_get_name(module->ndpi, flow->protocol.category));
  out->confidence = confidence((unsigned)ndpi->confidence);
  out->guessed = flow->guessed;
  COPY_ARRAY(out->server_name, ndpi->host_server_name);

  /* `protos` is a union: of its members only the one of the flow's own protocol is valid. */
  if (is(flow, NDPI_PROTOCOL_HTTP)) {
    COPY_STRING(out->user_agent, ndpi->http.user_agent);
    COPY_STRING(out->content_type, ndpi->http.content_type);
  } else if (is_tls_like(flow)) {
    out->fingerprints = FM_FINGERPRINTS_TLS;
    COPY_STRING(out->user_agent, ndpi->http.user_agent);
    /* J: JA4 before 4.12 is wrong. The caller has its own, and JA3. */
#if NDPI_AT_LEAST(4, 12)
    COPY_ARRAY(out->client_fingerprint, ndpi->protos.tls_quic.ja4_client);
#endif
    COPY_ARRAY(out->server_fingerprint, ndpi->protos.tls_quic.ja3_server);
  } else if (is(flow, NDPI_PROTOCOL_SSH)) {
    out->fingerprints = FM_FINGERPRINTS_SSH;
    COPY_ARRAY(out->client_fingerprint, ndpi->protos.ssh.hassh_client);
    COPY_ARRAY(out->server_fingerprint, ndpi->protos.ssh.hassh_server);
  } else if (is(flow, NDPI_PROTOCOL_DHCP)) {
    out->fingerprints = FM_FINGERPRINTS_DHCP;
    COPY_ARRAY(out->client_fingerprint, ndpi->protos.dhcp.fingerprint);
  }
}

/* M: what few columns need, and a version that is not known may lack. */
#ifdef FM_ESSENTIAL

void fm_name_host(struct fm_module *module, struct fm_flow *flow, const char *host,
                  size_t length) {
  (void)module, (void)flow, (void)host, (void)length;
}

void fm_details(const struct fm_flow *flow, struct fm_details *out) {
  (void)flow;
  memset(out, 0, sizeof *out);
}

const char *fm_risk_name(unsigned risk) { return (void)risk, NULL; }

const char *fm_cipher_name(unsigned cipher) { return (void)cipher, NULL; }

#else

void fm_name_host(struct fm_module *module, struct fm_flow *flow, const char *host,
                  size_t length) {
  if (flow->ndpi.host_server_name[0] != '\0' || !is_tls_like(flow)) return;
  ndpi_protocol_match_result match;
  memset(&match, 0, sizeof match);
  int app = ndpi_match_string_subprotocol(module->ndpi, (char *)host, (u_int)length, &match);
  /* What the name does not say was said by the address, which is the weaker word. */
  if (MASTER(flow->protocol) != NDPI_PROTOCOL_UNKNOWN) {
    APP(flow->protocol) = MASTER(flow->protocol);
    MASTER(flow->protocol) = NDPI_PROTOCOL_UNKNOWN;
  }
  if (app > 0 && app != (int)APP(flow->protocol)) {
    MASTER(flow->protocol) = APP(flow->protocol);
    APP(flow->protocol) = (u_int16_t)app;
    flow->protocol.category = match.protocol_category;
  }
}

void fm_details(const struct fm_flow *flow, struct fm_details *out) {
  const struct ndpi_flow_struct *ndpi = &flow->ndpi;
  memset(out, 0, sizeof *out);
  u_int16_t client, server;
  out->risks = ndpi->risk;
  out->risk_score = ndpi_risk2score(ndpi->risk, &client, &server);
  if (is_tls_like(flow)) {
    out->tls_version = ndpi->protos.tls_quic.ssl_version;
    out->tls_cipher = ndpi->protos.tls_quic.server_cipher;
    COPY_STRING(out->issuer, ndpi->protos.tls_quic.issuerDN);
    COPY_STRING(out->subject, ndpi->protos.tls_quic.subjectDN);
  }
}

const char *fm_risk_name(unsigned risk) {
  return risk < NDPI_MAX_RISK ? ndpi_risk2str((ndpi_risk_enum)risk) : NULL;
}

const char *fm_cipher_name(unsigned cipher) {
  /* L: 4.6 writes what it does not know into the caller's buffer, 4.2 returns a text of its own. */
#if NDPI_AT_LEAST(4, 6)
  char unknown[8];
  const char *name = ndpi_cipher2str(cipher, unknown);
  if (name == unknown) return NULL;
#else
  const char *name = ndpi_cipher2str(cipher);
#endif
  return name != NULL && strncmp(name, "TLS_", 4) == 0 ? name : NULL;
}

#endif
