package custody

import "fmt"

// CheckIssuer reports an issuer name that cannot be a part of a path: 1 to 64
// letters, digits, '.', '_' or '-', beginning with a letter or a digit. (In a
// Vault policy '+' and '*' would match more than they say.)
func CheckIssuer(name string) error {
	if !plain(name, 64) || name[0] == '.' || name[0] == '_' || name[0] == '-' {
		return fmt.Errorf("issuer name %q: use 1 to 64 letters, digits, '.', '_' or '-', and begin with a letter or a digit", name)
	}
	return nil
}

// CheckHandle reports a handle that no custody here has given out. Handles are
// kids: thumbprints in base64url (RFC 7638).
func CheckHandle(handle string) error {
	if !plain(handle, 128) || handle[0] == '.' {
		return fmt.Errorf("handle %q is not one of a private half", handle)
	}
	return nil
}

func plain(s string, most int) bool {
	if s == "" || len(s) > most {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}
