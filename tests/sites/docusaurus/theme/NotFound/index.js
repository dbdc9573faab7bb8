// The status of the page, for the beacon: a route within the site has no HTTP status.
import Head from '@docusaurus/Head';
import NotFound from '@theme-original/NotFound';

export default function CountedNotFound(props) {
  return (
    <>
      <Head>
        <meta name="headcount:status" content="404" />
      </Head>
      <NotFound {...props} />
    </>
  );
}
