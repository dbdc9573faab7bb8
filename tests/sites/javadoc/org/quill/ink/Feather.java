package org.quill.ink;

import org.quill.paper.Sheet;

/** What writes. */
public class Feather {
    /** A new feather. */
    public Feather() {}

    /**
     * Writes on a sheet.
     *
     * @param sheet what to write on
     */
    public void write(Sheet sheet) {}
}
