package ipnisync

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/multiformats/go-multiaddr"
)

// codeHTTPath is the protocol code of the legacy multiaddr component httpath.
// Its value is the percent-escaped path as text. It was replaced by http-path
// (0x01e1), whose value is the path itself.
const codeHTTPath = 0x300200

// The multiaddr library keeps its protocols in unguarded maps, so a protocol
// can only be added while packages are initialised. Another package of ours
// adds the same one; whoever comes first wins.
func init() {
	if multiaddr.ProtocolWithCode(codeHTTPath).Code != 0 {
		return
	}
	err := multiaddr.AddProtocol(multiaddr.Protocol{
		Name:       "httpath",
		Code:       codeHTTPath,
		VCode:      multiaddr.CodeToVarint(codeHTTPath),
		Size:       multiaddr.LengthPrefixedVarSize,
		Transcoder: multiaddr.NewTranscoderFromFunctions(httpathToBytes, httpathToString, validateHTTPath),
	})
	if err != nil {
		panic(fmt.Sprintf("ipnisync: add multiaddr protocol httpath: %v", err))
	}
}

func httpathToBytes(s string) ([]byte, error)  { return []byte(s), nil }
func httpathToString(b []byte) (string, error) { return string(b), nil }

func validateHTTPath(b []byte) error {
	if bytes.IndexByte(b, '/') >= 0 {
		return errors.New("httpath with an unescaped slash")
	}
	return nil
}
