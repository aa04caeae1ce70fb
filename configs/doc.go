// Package configs is keyturn's configuration: one YAML file, the flags and the
// environment over it, checked as a whole before anything is built from it.
//
// yaml decodes and viper only overlays. viper's own decoding lower-cases every
// key, turns uid 4294967296 into 0 and `max_token_ttl: 3600` into 3.6
// microseconds, merges `Audit:` into `audit:`, and reports none of it; in a
// file that says who may sign what, each of these is a hole. So the bytes go
// through strictyaml, which refuses what yaml would bend until it fits, and every
// fault is told with its line. viper does what it is good at: it decides which of
// a flag, KEYTURN_* and VAULT_* counts, for the file's place and for a fixed list
// of scalars.
//
//	flag ─► KEYTURN_* ─► VAULT_* ─► file ─► default      the first that is set counts
//
// The scalars that the environment may set, all of them strings (docs/configuration.md
// tells them to users):
//
//	KEYTURN_CONFIG                    the file itself (--config)
//	KEYTURN_STORE                     store
//	KEYTURN_STATE_DIR                 state_dir (--state-dir)
//	KEYTURN_REPLICA                   replica
//	KEYTURN_LOG_LEVEL                 log.level (--log-level)
//	KEYTURN_LOG_FORMAT                log.format (--log-format)
//	KEYTURN_VAULT_ADDRESS             vault.address (--vault-address), VAULT_ADDR
//	KEYTURN_VAULT_NAMESPACE           vault.namespace, VAULT_NAMESPACE
//	KEYTURN_VAULT_CA_CERT_FILE        vault.ca_cert_file, VAULT_CACERT
//	KEYTURN_VAULT_MOUNT               vault.mount
//	KEYTURN_VAULT_AUTH_METHOD         vault.auth.method
//	KEYTURN_VAULT_AUTH_MOUNT          vault.auth.mount
//	KEYTURN_VAULT_AUTH_ROLE_ID_FILE   vault.auth.role_id_file
//	KEYTURN_VAULT_AUTH_SECRET_ID_FILE vault.auth.secret_id_file
//	KEYTURN_VAULT_AUTH_TOKEN_FILE     vault.auth.token_file
//	KEYTURN_LOCAL_DIR                 local.dir
//	KEYTURN_LOCAL_KEY_FILE            local.key_file
//	KEYTURN_LISTEN_ADMIN_PATH         listen.admin.path
//	KEYTURN_LISTEN_PUBLIC_ADDR        listen.public.addr (--public-addr)
//	KEYTURN_LISTEN_STATUS_ADDR        listen.status.addr (--status-addr)
//	KEYTURN_HARDENING_LANDLOCK        hardening.landlock
//	KEYTURN_AUDIT_FILE                audit.file
//
// An empty variable counts as unset. VAULT_* count with store vault alone, and
// VAULT_TOKEN for `vault.auth.method: token` alone: there is no other way to
// give a secret but a file. What issuers, rings and profiles say stands in the
// file only, since replicas must agree on it.
//
// A path that is relative starts at the folder of the file; one from a flag or
// the environment at the working directory. A file of secrets may be named
// `credential:NAME`: what systemd hands over with LoadCredential=NAME.
//
// Three packages read a file. strictyaml turns bytes into values and knows nothing
// of keyturn; internal/syntax judges a single text, a name or a URL; this one has
// the settings, their defaults, and what they say about each other:
//
//	bytes ─► strictyaml ─► overlay ─► paths, defaults ─► validate ─► Judge
//	            └─ faults, lines of the fields ─┴─ faults ─┴─ all of them at once
//
// The package imports keyring, whose configuration it fills, and judges what
// one file can tell about itself. Timing, schedules and profile rules are
// judged by those who live by them, keyring, rotator and signer, through
// Options.Judge, so that all faults of a file are told at once.
package configs
