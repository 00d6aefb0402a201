package announce

import (
	"encoding/json"

	"github.com/ipfs/go-cid"
)

// wireMessage is the JSON form of a message (announce.md, section 1): all four
// keys always present, addresses and extra data as base64, null if empty.
type wireMessage struct {
	Cid       cid.Cid
	Addrs     [][]byte
	ExtraData []byte
	OrigPeer  string
}

// MarshalJSON returns the message as the JSON object that PUT /announce takes.
// It is an error if the message has no CID or exceeds a limit that receivers
// have.
func (m *Message) MarshalJSON() ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	w := wireMessage{Cid: m.Cid, OrigPeer: m.OrigPeer}
	for _, addr := range m.Addrs {
		w.Addrs = append(w.Addrs, addr.Bytes())
	}
	if len(m.ExtraData) > 0 {
		w.ExtraData = m.ExtraData
	}
	return json.Marshal(w)
}

// UnmarshalJSON is [DecodeJSON] into m, which is unchanged after an error.
func (m *Message) UnmarshalJSON(b []byte) error {
	decoded, err := DecodeJSON(b)
	if err != nil {
		return err
	}
	*m = *decoded
	return nil
}

// DecodeJSON reads a message from its JSON form. Keys are matched without
// regard to case, and unknown ones are ignored; nothing but white space may
// follow. Addresses are treated as by [DecodeCBOR], and its limits hold. Errors
// match [ErrMalformed].
func DecodeJSON(b []byte) (*Message, error) {
	var w wireMessage
	if err := json.Unmarshal(b, &w); err != nil {
		return nil, malformedf("%w", err)
	}
	switch {
	case !w.Cid.Defined():
		return nil, malformedf("announce message has no Cid")
	case w.Cid.ByteLen() >= maxCidBytes:
		return nil, malformedf("announce message has a Cid of %d bytes", w.Cid.ByteLen())
	case len(w.Addrs) > maxAddrs:
		return nil, malformedf("announce message has %d addresses, more than %d", len(w.Addrs), maxAddrs)
	case len(w.OrigPeer) > maxTextBytes:
		return nil, malformedf("announce message has an OrigPeer of %d bytes", len(w.OrigPeer))
	}
	addrs, err := parseAddrs(w.Addrs)
	if err != nil {
		return nil, err
	}
	m := &Message{Cid: w.Cid, Addrs: addrs, OrigPeer: w.OrigPeer}
	if len(w.ExtraData) > 0 {
		m.ExtraData = w.ExtraData
	}
	return m, nil
}
