package org.quill.paper;

/** What is written on. */
public class Sheet {
    /** An empty sheet. */
    public Sheet() {}
}
