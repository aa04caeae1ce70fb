# keyturn: rotator, signer, publisher. Generated; the roles need no more than this.

# see that check-and-set is required
path "keyturn/config" {
  capabilities = ["read"]
}

# the manifest
path "keyturn/data/issuers/+/manifest" {
  capabilities = ["create", "read", "update"]
}

# its versions
path "keyturn/metadata/issuers/+/manifest" {
  capabilities = ["read"]
}

# private halves
path "keyturn/data/issuers/+/keys/+" {
  capabilities = ["create", "read"]
}

# destroy a half
path "keyturn/destroy/issuers/+/keys/+" {
  capabilities = ["update"]
}

# take its last traces away
path "keyturn/metadata/issuers/+/keys/+" {
  capabilities = ["delete", "read"]
}

# find halves that nobody names
path "keyturn/metadata/issuers/+/keys/" {
  capabilities = ["list"]
}

# anchor the audit log; HOST in place of + binds it to that replica
path "keyturn/data/issuers/+/audit/+" {
  capabilities = ["create", "read", "update"]
}

# how long the token lasts
path "auth/token/lookup-self" {
  capabilities = ["read"]
}

# keep it alive
path "auth/token/renew-self" {
  capabilities = ["update"]
}

# end it at shutdown
path "auth/token/revoke-self" {
  capabilities = ["update"]
}
